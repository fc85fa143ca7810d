"""Positions: where a turn stands in the journal."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentmemory_engine.errors import InvalidPosition

_TEXT = re.compile(r"(\d{1,5})\.(\d{1,10})-(\d{1,16})", re.ASCII)


class Entry(NamedTuple):
    """A place in one shard's journal; it is also the id of the stream entry. Ordered."""

    opening: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.opening}-{self.sequence}"

    @classmethod
    def parse(cls, text: bytes | str) -> Entry:
        """Read a stream id, `<opening>-<sequence>`."""
        opening, _, sequence = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(opening), int(sequence))

    def next(self) -> Entry:
        return Entry(self.opening, self.sequence + 1)


START = Entry(0, 0)


class Position(NamedTuple):
    """A turn's place among all shards, written `<shard>.<opening>-<sequence>`.

    Opaque to clients, ordered within an agent.
    """

    shard: int
    entry: Entry

    def __str__(self) -> str:
        return f"{self.shard}.{self.entry}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a position from an earlier answer. Raises InvalidPosition."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidPosition(f"{text[:64]!r} is not a position; use one from an earlier answer, as it was.")
        shard, opening, sequence = map(int, match.groups())
        return cls(shard, Entry(opening, sequence))
