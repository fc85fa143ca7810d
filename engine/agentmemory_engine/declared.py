"""What is declared: knowledge and sessions, which a request writes to Postgres at once, and which have no position."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentmemory_engine.errors import ShardClosed, StoreUnavailable
from agentmemory_engine.models import Models
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import Tails
from agentmemory_engine.tombstones import Erasure, Tombstones, lock_declared


class Declared:
    """Begins the transactions that write it."""

    def __init__(self, postgres: Postgres, tails: Tails, settings: Settings, models: Models) -> None:
        self._postgres = postgres
        self._tails = tails
        self._settings = settings
        self._models = models
        self._tombstones = Tombstones(postgres)

    @asynccontextmanager
    async def transaction(self, agent: str, *, alone: bool) -> AsyncIterator[Session]:
        """A transaction; `alone`: that no other writer of what this agent has declared shares.

        An erasure that is accepted, and that Postgres could not be told of then, is marked before anything is written:
        marked later, it would take what belongs to the new life. Raises StoreUnavailable.
        """
        erasure = await self._pending(agent)
        async with self._models.writing() as session:
            if erasure is not None:
                await self._tombstones.mark(session, self._settings.shard_of(agent), erasure)
            elif alone:
                await lock_declared(session, self._postgres, agent)
            yield session

    async def _pending(self, agent: str) -> Erasure | None:
        """The erasure in the journal. Where Redis cannot be asked, none is known of but those that are marked."""
        try:
            erasure = (await self._tails.unflushed(agent)).erasure
        except (StoreUnavailable, ShardClosed):
            return None
        return None if erasure is None else Erasure.of_entry(erasure)
