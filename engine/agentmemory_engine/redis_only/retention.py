"""Retention: turns that are older than they are kept leave the log, with their vectors."""

from __future__ import annotations

import asyncio
from functools import partial

from agentmemory_engine.batches import rows_of
from agentmemory_engine.errors import ShardClosed
from agentmemory_engine.journal import JournalEntry, run_id_of
from agentmemory_engine.observer import Observer
from agentmemory_engine.positions import START
from agentmemory_engine.redis import Redis
from agentmemory_engine.redis_only.log import Log
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.retention import RetentionLoop
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings

_AGENTS_A_PAGE = 200


class Retention(RetentionLoop):
    """The worker that lets go of old turns. It may work in several sidecars at once."""

    def __init__(self, redis: Redis, log: Log, settings: Settings, openings: Openings, observer: Observer) -> None:
        super().__init__(settings, observer)
        self._redis = redis
        self._log = log
        self._keys = settings.keys
        self._openings = openings

    async def sweep(self) -> int:
        """Delete what is too old by the clock of Redis; how many events. Raises ShardClosed, StoreUnavailable."""
        return sum([await self._sweep(shard) for shard in range(self._settings.shards)])

    async def _sweep(self, shard: int) -> int:
        expired = start = 0
        while True:
            last = start + _AGENTS_A_PAGE - 1
            names = await self._redis.execute("ZRANGE", self._keys.agents(shard), start, last)
            agents = [name.decode() for name in names]
            if agents:
                ages = await self._openings.opened(shard, partial(self._ages, shard, agents))
                for agent, age in zip(agents, ages, strict=True):
                    if age > self._kept:
                        expired += await self._expire(shard, agent, age)
            if len(agents) < _AGENTS_A_PAGE:
                return expired
            start += _AGENTS_A_PAGE

    @property
    def _kept(self) -> float:
        """In milliseconds."""
        assert self._settings.retention is not None
        return self._settings.retention * 1000

    async def _ages(self, shard: int, agents: list[str]) -> list[int]:
        """The age of each agent's first turn in milliseconds; -1 where there is none."""
        connection = await self._openings.at(shard)
        keys = [self._keys.state(shard), *(self._keys.log(shard, agent) for agent in agents)]
        reply = await self._redis.run_on(connection, load_script("log_ages"), keys, [run_id_of(connection)])
        if reply[0] == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        return list(reply[1:])

    async def _expire(self, shard: int, agent: str, age: int) -> int:
        """All of one agent that is too old, a page at a time; its first turn is that old."""
        expired, oldest = 0, None
        while True:
            page = await self._log.page(agent, START)
            if not page.entries:
                return expired
            oldest = page.entries[0].accepted_ms if oldest is None else oldest
            # By the clock of Redis, of which the age of the first turn tells.
            limit = oldest + age - self._kept
            old = [entry for entry in page.entries if entry.accepted_ms < limit]
            if old:
                gone = await self._trim(shard, agent, old)
                expired += gone
                self._observer.expired(gone)
            if len(old) < len(page.entries) or not page.more:
                return expired
            await asyncio.sleep(0)

    async def _trim(self, shard: int, agent: str, old: list[JournalEntry]) -> int:
        ids = [row.id for entry in old for row in rows_of(entry)]
        keys = self._keys
        names = [keys.state(shard), keys.log(shard, agent), keys.vectors(shard, agent), keys.unembeddable(shard, agent)]
        connection = await self._openings.at(shard)
        args: list[bytes | str] = [run_id_of(connection), str(old[-1].entry.next()), *(one.bytes for one in ids)]
        done = await self._redis.run_on(connection, load_script("log_trim"), names, args)
        return len(ids) if done else 0
