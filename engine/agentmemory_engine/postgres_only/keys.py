"""Idempotency keys: forgotten when their window has ended."""

from __future__ import annotations

import asyncio
import logging

from agentmemory_engine.complaints import Complaints
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres

logger = logging.getLogger(__name__)

_AT_ONCE = 1000
_PAUSE = 60.0


class KeyKeeper:
    """The worker that lets go of old keys."""

    def __init__(self, postgres: Postgres, observer: Observer) -> None:
        self._postgres = postgres
        self._observer = observer
        self._complaints = Complaints(logger, "forgetting of idempotency keys waits")

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.sweep()
                self._complaints.end()
            except Unavailable as error:
                self._observer.failed("keys")
                self._complaints.say(error)
            except Exception:
                self._observer.failed("keys")
                logger.exception("old idempotency keys are still there, and it is tried again")
            await asyncio.sleep(_PAUSE)

    async def sweep(self) -> int:
        """Forget what is past its window by the clock of Postgres; how many. Raises StoreUnavailable."""
        total = 0
        while True:
            row = await self._postgres.fetchrow("forget_keys", _AT_ONCE)
            forgotten = int(row[0]) if row else 0
            total += forgotten
            if forgotten < _AT_ONCE:
                return total
