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

    async def at(self, shard: int) -> Connection:
        """The connection to the server that holds the shard. Raises StoreUnavailable."""
        return await self._redis.connection(self._settings.keys.state(shard))

    async def open_all(self) -> None:
        """Open every shard that is closed. Raises StoreUnavailable when the server of one does not answer."""
        done = await asyncio.gather(*map(self._open, range(self._settings.shards)), return_exceptions=True)
        for answer in done:
            if isinstance(answer, BaseException):
                raise answer

    async def opened(self, shard: int, call: Callable[[], Awaitable[T]]) -> T:
        """What the call answers, before which the shard is opened where that is closed.

        Raises ShardClosed where it was closed once more, StoreUnavailable, and what the call raises.
        """
        try:
            return await call()
        except ShardClosed:
            # The run that a connection knows can be one that is over.
            await self._redis.refresh(partly=True)
            await self._open(shard)
        return await call()

    async def _open(self, shard: int) -> None:
        connection = await self.at(shard)
        keys = [self._settings.keys.state(shard), self._settings.keys.openings(shard)]
        if await self._redis.run_on(connection, load_script("log_open"), keys, [run_id_of(connection)]):
            self._observer.opened()
