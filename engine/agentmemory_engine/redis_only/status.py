"""Status of a memory that has only Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from agentmemory_engine.answers import ShardStatus, Status
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.journal import run_id_of
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.redis import Redis, check_policy, check_room
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings
from agentmemory_engine.status import LATE, PATIENCE, persistence_of, reason_of, within


class _Standing(NamedTuple):
    """A shard as Redis has it. `waiting` and `unembeddable` count events and facts."""

    is_open: bool
    last: Entry | None
    searchable: Entry | None
    waiting: int
    unembeddable: int
    letters: int


class Reporter:
    """Answers for the whole memory. Nothing is ever pending: a turn is as durable as Redis is when it is accepted."""

    def __init__(self, redis: Redis, settings: Settings, openings: Openings, *, embed: bool) -> None:
        self._redis = redis
        self._settings = settings
        self._openings = openings
        self._embed = embed

    async def status(self) -> Status:
        """Never raises for a store that is down: its part is None, and `degraded` names it.

        `unembedded` counts what came since an agent was last looked at: of turns that were let go of in the meantime,
        too.
        """
        seen = await within(PATIENCE, self._standings()) or [None] * self._settings.shards
        known = None if None in seen else [one for one in seen if one is not None]
        there = known is not None
        return Status(
            mode=self._settings.mode,
            lag=0.0 if there else None,
            pending=0 if there else None,
            dead_letters=0 if there else None,
            quarantined=None if known is None else sum(one.letters for one in known),
            unembedded=None if known is None else sum(one.waiting for one in known) if self._embed else 0,
            unembeddable=None if known is None else sum(one.unembeddable for one in known),
            persistence=persistence_of(self._redis.infos if there else []),
            shards=[self._shard(shard, found) for shard, found in enumerate(seen)],
            degraded=[] if there else ["redis"],
        )

    def _shard(self, shard: int, found: _Standing | None) -> ShardStatus:
        last = found.last if found else None
        searchable = found.searchable if found and self._embed else last
        return ShardStatus(
            shard=shard,
            open=found.is_open if found else None,
            opening=last.opening if last else None,
            pending=0 if found else None,
            lag=0.0 if found else None,
            durable=Position(shard, last) if last else None,
            searchable=Position(shard, searchable) if searchable else None,
            owner=None,
        )

    async def _standings(self) -> list[_Standing | None]:
        return await asyncio.gather(*map(self._standing, range(self._settings.shards)))

    async def _standing(self, shard: int) -> _Standing | None:
        """What one shard says, or None: on a cluster, its server alone may be down."""
        try:
            return await self._ask(shard)
        except Unavailable:
            return None

    async def _ask(self, shard: int) -> _Standing:
        connection = await self._openings.at(shard)
        keys = self._settings.keys
        run, opening, sequence, searchable, *counts = await self._redis.run_on(
            connection, load_script("log_status"), [keys.state(shard), keys.agents(shard), keys.letters(shard)], []
        )
        last = Entry(int(opening), int(sequence)) if opening else None
        embedded = Entry.parse(searchable) if searchable else last
        return _Standing(run == run_id_of(connection), last, embedded, *map(int, counts))

    async def check(self, identity: Callable[[], Awaitable[str]] | None = None) -> dict[str, str]:
        """What keeps a turn from being accepted, by part; empty when nothing does. Answers within seconds."""

        async def ask() -> None:
            for info in await self._redis.refresh():
                check_policy(info)
                check_room(info)
            if identity is not None:
                await identity()
            await self._openings.open_all()

        reason = await within(PATIENCE, reason_of(ask()))
        if reason is None:
            reason = LATE
        return {"redis": reason} if reason else {}
