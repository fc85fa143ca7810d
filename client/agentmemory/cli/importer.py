"""Sends a conversation from a file to one agent: checked whole first, in order, each turn the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from agentmemory.agent import Agent
from agentmemory.errors import ProblemError
from agentmemory.importing import BadLine, ImportedTurn, LineReader, turns
from agentmemory.models import Receipt


class ImportFailed(Exception):
    """The file, or a part of it, cannot be imported; the message says which and why."""


@dataclass(frozen=True)
class Survey:
    """What is in the file: how many good lines, which bad ones, and a digest of it all."""

    lines: int
    bad: list[BadLine]
    digest: str


class Importer:
    """One file on its way to one agent."""

    def __init__(self, file: Path, agent: Agent, *, skip_bad: bool = False) -> None:
        self._file = file
        self._agent = agent
        self._skip_bad = skip_bad

    def survey(self) -> Survey:
        """Read the whole file once; nothing is sent.

        Raises:
            ImportFailed: a line is bad, and bad lines shall not be skipped; or there is no good one.
        """
        digest = hashlib.blake2b(digest_size=20)
        reader = LineReader(skip_bad=self._skip_bad)
        with self._file.open("rb") as stream:
            try:
                count = sum(1 for _ in reader.read(_fed_to(digest, stream)))
            except BadLine as bad:
                raise ImportFailed(
                    f"{self._file}, {bad}. Nothing was sent: mend it, or leave such lines out with --skip-bad."
                ) from None
        if count == 0:
            raise ImportFailed(f"{self._file} has no line that can be imported.")
        return Survey(count, reader.bad, digest.hexdigest())

    async def knows(self, line: int) -> bool:
        """Whether memory holds the turn that ends with this line; what stands before it came before it."""
        for turn in self._turns():
            if turn.last == line:
                return await self._holds(turn)
        return False

    async def send(self, *, after: int = 0) -> AsyncIterator[tuple[ImportedTurn, Receipt | None]]:
        """Each turn once it is acknowledged; up to line `after` nothing is sent, and the receipt is None.

        Raises:
            ImportFailed: a turn is refused. What came before it is in memory.
            Unreachable, Unavailable: the sidecar did not come back in time.
        """
        for turn in self._turns():
            yield turn, await self._record(turn) if turn.last > after else None

    def _turns(self) -> Iterator[ImportedTurn]:
        with self._file.open("rb") as stream:
            yield from turns(LineReader(skip_bad=self._skip_bad).read(stream), agent=self._agent.name)

    async def _record(self, turn: ImportedTurn) -> Receipt:
        try:
            return await self._agent.record(turn.events, session=turn.session, idempotency_key=turn.key)
        except ProblemError as error:
            if error.status == 503:
                raise
            raise ImportFailed(f"{self._file}, lines up to {turn.last}: {error}") from error

    async def _holds(self, turn: ImportedTurn) -> bool:
        wanted = turn.events[-1]
        assert isinstance(wanted.at, datetime)
        around = self._agent.timeline(since=wanted.at, until=wanted.at + timedelta(seconds=1), session=turn.session)
        async for event in around:
            if event.metadata == wanted.metadata and event.content == wanted.content:
                return True
        return False


def _fed_to(digest: hashlib.blake2b, lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line
