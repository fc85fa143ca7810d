"""Openings without Postgres: a shard is opened, by one script, as soon as somebody finds it closed.

A new run of Redis may have gone back in time. All that an opening has to note is the last entry that it found: what was
given past that before is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentmemory_engine.connection import Connection
from agentmemory_engine.errors import ShardClosed
from agentmemory_engine.journal import run_id_of
from agentmemory_engine.observer import Observer
from agentmemory_engine.redis import Redis
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings

T = TypeVar("T")


class Openings:
    """Opens shards for the present run of Redis."""

    def __init__(self, redis: Redis, settings: Settings, observer: Observer) -> None:
        self._redis = redis
        self._settings = settings
        self._observer = observer

    async def open_all(self, connection: Connection) -> None:
        """Open every shard that is closed. Raises StoreUnavailable."""
        await asyncio.gather(*(self._open(connection, shard) for shard in range(self._settings.shards)))

    async def opened(self, shard: int, call: Callable[[], Awaitable[T]]) -> T:
        """What the call answers, before which the shard is opened where that is closed.

        Raises ShardClosed where it was closed once more, StoreUnavailable, and what the call raises.
        """
        try:
            return await call()
        except ShardClosed:
            # The run that a connection knows can be one that is over.
            await self._redis.refresh()
            await self._open(await self._redis.connection(), shard)
        return await call()

    async def _open(self, connection: Connection, shard: int) -> None:
        keys = [self._settings.keys.state(shard), self._settings.keys.openings(shard)]
        if await self._redis.run_on(connection, load_script("log_open"), keys, [run_id_of(connection)]):
            self._observer.opened()
