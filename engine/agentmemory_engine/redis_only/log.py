"""The log: the turns of each agent, in a stream of its own that keeps the newest of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from agentmemory_engine.answers import Erased, Receipt
from agentmemory_engine.batches import raw_or_none
from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.errors import ShardClosed
from agentmemory_engine.journal import ERASURE, Acceptance, Submission, TailPage, key_reused, patiently, run_id_of
from agentmemory_engine.jsonb import given_json
from agentmemory_engine.keys import digest_key
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.redis import Redis, check_policy
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings

_FIRST_YEAR = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Glimpse(msgspec.Struct):
    """What of an event its bounds depend on."""

    content: str | None = None
    at: datetime | None = None
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_UNUSUAL = re.compile(rb"[eE][+-]?[0-9]{5}|[0-9]{16000}")
"""In JSON that may hold a number beyond what jsonb has."""
_glimpses = msgspec.json.Decoder(list[_Glimpse])


def format_time(at: datetime) -> str:
    """The time as the scripts compare it: microseconds since the year 1, in 18 digits."""
    return f"{(at - _FIRST_YEAR) // _MICROSECOND:018}"


def parse_time(text: bytes) -> datetime:
    """The reverse of format_time."""
    return _FIRST_YEAR + int(text) * _MICROSECOND


class Log(Acceptance):
    """Accepts turns, and reads them. A shard that is found closed is opened."""

    def __init__(self, redis: Redis, settings: Settings, openings: Openings, news: Callable[[int], None]) -> None:
        """`news` is told the shard of every turn."""
        super().__init__(redis, settings)
        self._openings = openings
        self._news = news

    async def _append(self, turn: Submission) -> Receipt:
        shard = self._settings.shard_of(turn.agent)
        receipt = await self._openings.opened(shard, partial(super()._append, turn))
        self._news(shard)
        return receipt

    def _turn_keys(self, shard: int, agent: str, digest: bytes) -> list[str]:
        keys = self._keys
        return [
            keys.state(shard),
            keys.log(shard, agent),
            keys.agents(shard),
            keys.document(shard, agent),
            keys.window(shard, agent),
            keys.idempotency(shard, agent, digest),
            keys.about(shard, agent),
        ]

    def _bounds(self, turn: Submission) -> str:
        """Raises InvalidInput for metadata that could go nowhere else."""
        events = _glimpses.decode(turn.events)
        for metadata in (raw_or_none(one.metadata) for one in events):
            if metadata is not None and _UNUSUAL.search(metadata):
                given_json(metadata)
        dated = [format_time(one.at) for one in events if one.at is not None]
        first, last = (min(dated), max(dated)) if dated else ("", "")
        undated = int(len(dated) < len(events))
        embeddable = sum(bool(searchable_text(one.content, raw_or_none(one.payload))) for one in events)
        return f"{int(self._settings.ttl * 1000)} {self._settings.history} {embeddable} {first} {last} {undated}"

    async def _read_key(self, shard: int, command: str, *args: str | int) -> Any:
        return await self._openings.opened(shard, partial(super()._read_key, shard, command, *args))

    async def page(self, agent: str, start: Entry) -> TailPage:
        """What the agent's log holds from `start` on, a page of it. Raises ShardClosed, StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        stream = self._keys.log(shard, agent)
        return await self._openings.opened(shard, lambda: self._page(shard, stream, start))

    async def had_document(self, agent: str) -> bool:
        """Whether the last change of the agent's document was no deletion. Raises ShardClosed, StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        key = self._keys.about(shard, agent)
        return bool(await patiently(lambda: self._read_key(shard, "HGET", key, "document")) == b"w")

    async def erase(self, agent: str, key: str) -> tuple[Position, bool, Erased]:
        """Erase an agent: where that stands, whether it was done before with this key, and what it took.

        Raises KeyReused, WrongEvictionPolicy, ShardClosed, StoreUnavailable.
        """
        shard, digest = self._settings.shard_of(agent), digest_key(key)
        reply = await patiently(lambda: self._openings.opened(shard, lambda: self._run_erasure(agent, shard, digest)))
        if reply[0] == b"reused":
            raise key_reused()
        documents, messages, events, embeddings, sessions, knowledge, letters = map(int, reply[2].split(b","))
        erased = Erased(
            documents=documents, messages=messages, journalled=0, events=events, embeddings=embeddings, snapshots=0,
            dead_letters=letters, sessions=sessions, knowledge=knowledge,
        )  # fmt: skip
        return Position(shard, Entry.parse(reply[1])), reply[0] == b"repeated", erased

    async def _run_erasure(self, agent: str, shard: int, digest: bytes) -> Any:
        connection = await self._at(shard)
        assert connection.info is not None
        check_policy(connection.info)
        keys, settings = self._keys, self._settings
        names = [
            *self._turn_keys(shard, agent, digest), keys.vectors(shard, agent), keys.unembeddable(shard, agent),
            keys.records(shard, agent), keys.letters(shard),
        ]  # fmt: skip
        args: list[bytes | str | int] = [
            run_id_of(connection), agent, digest.hex(), ERASURE.hex(), int(settings.idempotency_window * 1000),
            int(settings.ttl * 1000),
        ]  # fmt: skip
        reply = await self._redis.run_on(connection, load_script("log_erase"), names, args)
        if reply[0] == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        return reply
