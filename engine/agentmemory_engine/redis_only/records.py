"""Records: the sessions and facts of an agent as JSON in a hash, changed by who has read them last, or not at all."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agentmemory_engine.errors import ShardClosed, StoreUnavailable
from agentmemory_engine.journal import patiently, run_id_of
from agentmemory_engine.keys import check_agent, shard_of
from agentmemory_engine.redis import Redis, check_policy
from agentmemory_engine.redis_only.beliefs import FactRow
from agentmemory_engine.redis_only.meetings import Meeting, SessionRow, meetings_of
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HELD = 32 << 20
"""Bytes of all records together, about."""
_RECORD = 1000
_LANES = 64
_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class Amendment:
    """What is to change: all of it, or nothing. `waiting` facts wait for vectors then."""

    sessions: Mapping[str, SessionRow] = field(default_factory=dict)
    facts: Mapping[UUID, FactRow] = field(default_factory=dict)
    gone: Sequence[UUID] = ()
    waiting: int = 0


@dataclass(frozen=True)
class Records:
    """An agent's records as of a revision, and the time by the clock of Redis when they were read."""

    revision: bytes
    now: datetime
    sessions: Mapping[str, SessionRow]
    facts: Mapping[UUID, FactRow]
    size: int
    met: Mapping[str, Meeting] = field(default_factory=dict)

    def after(self, change: Amendment, revision: bytes) -> Records:
        """These records after a change."""
        facts = {one: row for one, row in self.facts.items() if one not in change.gone} | dict(change.facts)
        size = self.size + _RECORD * (len(change.facts) + len(change.sessions))
        return replace(self, revision=revision, sessions={**self.sessions, **change.sessions}, facts=facts, size=size)


class RecordStore:
    """Reads and changes them. Asking again for what did not change costs next to nothing."""

    def __init__(self, redis: Redis, settings: Settings, openings: Openings, news: Callable[[int], None]) -> None:
        """`news` is told the shard of every fact that waits for a vector."""
        self._redis = redis
        self._settings = settings
        self._keys = settings.keys
        self._openings = openings
        self._news = news
        self._held: OrderedDict[str, Records] = OrderedDict()
        self._turns = [asyncio.Lock() for _ in range(_LANES)]
        """Writers of one agent in this process wait here for one another, and do not meet in Redis."""

    async def read(self, agent: str, *, met: bool = False) -> Records:
        """The agent's records; with `met`, when turns named each session. Raises ShardClosed, StoreUnavailable."""
        shard = self._settings.shard_of(check_agent(agent))
        reply, held = await patiently(lambda: self._openings.opened(shard, lambda: self._ask(agent, shard, met)))
        now = _EPOCH + timedelta(microseconds=int(reply[1]))
        if held is not None and reply[0] == b"same":
            found = replace(held, now=now)
        else:
            found = _parse(reply[2], now, reply[3])
            self._hold(agent, found)
        return replace(found, met=meetings_of(reply[-1]))

    async def _ask(self, agent: str, shard: int, met: bool) -> tuple[Any, Records | None]:
        held = self._held.get(agent)
        connection = await self._openings.at(shard)
        keys = [self._keys.state(shard), self._keys.about(shard, agent), self._keys.records(shard, agent)]
        args: list[bytes | int] = [run_id_of(connection), held.revision if held else b"", int(met)]
        reply = await self._redis.run_on(connection, load_script("log_records"), keys, args)
        if reply[0] == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        return reply, held

    def _hold(self, agent: str, records: Records) -> None:
        """For the next time. Let go of those that were not asked for the longest, where much is held."""
        self._held[agent] = records
        self._held.move_to_end(agent)
        while len(self._held) > 1 and sum(one.size for one in self._held.values()) > _HELD:
            self._held.popitem(last=False)

    @asynccontextmanager
    async def alone(self, agent: str) -> AsyncIterator[Editing]:
        """The only writer in this process of this agent's records."""
        async with self._turns[shard_of(check_agent(agent), _LANES)]:
            yield Editing(self, agent)

    async def amend(self, agent: str, records: Records, change: Amendment) -> bool:
        """Make the change, unless the records are others than these by now; whether it was made.

        Raises JournalFull, WrongEvictionPolicy, ShardClosed, StoreUnavailable; after that it may have been made.
        """
        shard = self._settings.shard_of(agent)
        reply = await self._openings.opened(shard, lambda: self._run(agent, shard, records, change))
        if reply[0] != b"changed":
            return False
        if change.waiting:
            self._news(shard)
        held = self._held.get(agent)
        if held is not None and held.revision == records.revision:
            self._hold(agent, held.after(change, reply[1]))
        return True

    async def _run(self, agent: str, shard: int, records: Records, change: Amendment) -> Any:
        connection, key = await self._openings.at(shard), self._keys
        assert connection.info is not None
        check_policy(connection.info)
        keys = [
            key.state(shard), key.about(shard, agent), key.records(shard, agent), key.agents(shard),
            key.vectors(shard, agent), key.unembeddable(shard, agent),
        ]  # fmt: skip
        args: list[bytes | str | int] = [
            run_id_of(connection), agent, records.revision, change.waiting, len(change.gone), len(change.gone),
        ]  # fmt: skip
        args += [f"f:{identity}" for identity in change.gone]
        args += [identity.bytes for identity in change.gone]
        for session, row in change.sessions.items():
            args += ["s:" + session, row.encode()]
        for identity, fact in change.facts.items():
            args += [f"f:{identity}", fact.encode()]
        reply = await self._redis.run_on(connection, load_script("log_amend"), keys, args)
        if reply[0] == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        return reply


class Editing:
    """Reads and changes an agent's records, again when somebody elsewhere came first."""

    def __init__(self, store: RecordStore, agent: str) -> None:
        self._store = store
        self._agent = agent
        self._left = _ATTEMPTS

    async def read(self, *, met: bool = False) -> Records:
        """As RecordStore has it."""
        return await self._store.read(self._agent, met=met)

    async def make(self, records: Records, change: Amendment) -> bool:
        """As RecordStore.amend has it. False: read again, and decide anew. Raises StoreUnavailable after many times."""
        if await self._store.amend(self._agent, records, change):
            return True
        self._left -= 1
        if not self._left:
            raise StoreUnavailable("redis", "others change the same records all the time; try again.")
        return False


def _parse(revision: bytes, now: datetime, flat: list[bytes]) -> Records:
    sessions: dict[str, SessionRow] = {}
    facts: dict[UUID, FactRow] = {}
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        kind, _, identity = name.decode().partition(":")
        if kind == "s":
            sessions[identity] = SessionRow.decode(value)
        else:
            facts[UUID(identity)] = FactRow.decode(value)
    return Records(revision, now, sessions, facts, sum(map(len, flat)) + _RECORD * len(flat) // 2)
