"""The keeper: opens shards though nobody asks for them, and clears away what is left of agents that are gone."""

from __future__ import annotations

import asyncio
import logging
import time

from agentmemory_engine.complaints import Complaints
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.journal import run_id_of
from agentmemory_engine.observer import Observer
from agentmemory_engine.redis import Redis
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings

logger = logging.getLogger(__name__)
_PAUSE = 1.0
_AGENTS_A_PAGE = 200
_TIDY_EVERY = 3600.0
_STAYS = 3600.0
"""Seconds for which the entry of an erasure stays at least: what is being embedded then must not come back."""


class Keeper:
    """The worker of every sidecar."""

    def __init__(self, redis: Redis, settings: Settings, openings: Openings, observer: Observer) -> None:
        self._redis = redis
        self._settings = settings
        self._openings = openings
        self._observer = observer
        self._complaints = Complaints(logger, "opening waits")

    async def run(self) -> None:
        """Work until cancelled."""
        tidied = time.monotonic()
        while True:
            try:
                await self._redis.refresh(partly=True)
                await self._openings.open_all()
                if time.monotonic() - tidied > _TIDY_EVERY:
                    tidied = time.monotonic()
                    await self.tidy()
                self._complaints.end()
            except Unavailable as error:
                self._observer.failed("opening")
                self._complaints.say(error)
            except Exception:
                self._observer.failed("opening")
                logger.exception("opening failed, and is tried again")
            await asyncio.sleep(_PAUSE)

    async def tidy(self, stays: float = _STAYS) -> int:
        """Clear away what is left of agents of whom nothing is kept; how many. Raises StoreUnavailable."""
        return sum([await self._tidy(shard, stays) for shard in range(self._settings.shards)])

    async def _tidy(self, shard: int, stays: float) -> int:
        cleared, start = 0, 0
        while True:
            key = self._settings.keys.agents(shard)
            names = await self._redis.execute("ZRANGE", key, start, start + _AGENTS_A_PAGE - 1)
            done = [await self._forget(shard, name.decode(), stays) for name in names]
            cleared += sum(done)
            if len(names) < _AGENTS_A_PAGE:
                return cleared
            start += _AGENTS_A_PAGE - sum(done)

    async def _forget(self, shard: int, agent: str, stays: float) -> int:
        keys, connection = self._settings.keys, await self._openings.at(shard)
        names = [
            keys.state(shard), keys.agents(shard), keys.log(shard, agent), keys.about(shard, agent),
            keys.vectors(shard, agent), keys.unembeddable(shard, agent), keys.records(shard, agent),
            keys.document(shard, agent), keys.window(shard, agent),
        ]  # fmt: skip
        args: list[bytes | str | int] = [run_id_of(connection), agent, int(stays * 1000)]
        return int(await self._redis.run_on(connection, load_script("log_forget"), names, args))
