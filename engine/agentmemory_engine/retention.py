"""Retention: events that are older than they are kept leave Postgres. Documents, sessions and knowledge stay.

An event's age counts from its acceptance, not from when it happened: what is imported from years ago is kept as long as
what happens now. What is pending is not touched, since it is not in Postgres; what still waits for its vector goes
without one, since a provider that is down must not keep what is to be gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from agentmemory_engine.complaints import Complaints
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Owned, lock_shard

logger = logging.getLogger(__name__)

_AT_ONCE = 500
"""Events deleted in one transaction: it holds the shard for some milliseconds."""
_AGENTS_A_PAGE = 500
_LONGEST_PAUSE = 3600.0


class Hold(Protocol):
    """Keeps others from changing an agent's events while some are deleted."""

    def may(self, agent: str) -> bool:
        """Whether it is for us to delete of this agent, as far as we know."""
        ...

    async def take(self, session: Session, agent: str) -> bool:
        """Whether it is; if so, nobody else changes its events until the end of the transaction."""
        ...


class OwnedShards:
    """Holds an agent by the row of its shard, where that is ours."""

    def __init__(self, postgres: Postgres, settings: Settings, owned: Callable[[], Mapping[int, Owned]]) -> None:
        self._postgres = postgres
        self._settings = settings
        self._owned = owned

    def may(self, agent: str) -> bool:
        """As Hold has it."""
        return self._settings.shard_of(agent) in self._owned()

    async def take(self, session: Session, agent: str) -> bool:
        """As Hold has it."""
        owned = self._owned().get(self._settings.shard_of(agent))
        return owned is not None and await lock_shard(session, self._postgres, owned) is not None


class Retention:
    """The worker that deletes old events, of the agents that it may hold."""

    def __init__(
        self,
        postgres: Postgres,
        settings: Settings,
        hold: Hold,
        observer: Observer,
    ) -> None:
        self._postgres = postgres
        self._settings = settings
        self._hold = hold
        self._observer = observer
        self._complaints = Complaints(logger, "retention waits")

    async def run(self) -> None:
        """Work until cancelled; nothing is done where events are kept for good."""
        if self._settings.retention is None:
            return
        pause = min(_LONGEST_PAUSE, max(0.1, self._settings.retention / 20))
        while True:
            try:
                await self.sweep()
                self._complaints.end()
            except Unavailable as error:
                self._observer.failed("retention")
                self._complaints.say(error)
            except Exception:
                self._observer.failed("retention")
                logger.exception("retention failed; what is too old is still there, and it is tried again")
            await asyncio.sleep(pause)

    async def sweep(self) -> int:
        """Delete what is too old by the clock of Postgres; how many events. Raises StoreUnavailable."""
        assert self._settings.retention is not None
        kept = timedelta(seconds=self._settings.retention)
        last, expired = "", 0
        while True:
            rows = await self._postgres.fetch("oldest_events", last, _AGENTS_A_PAGE, kept)
            for row in rows:
                if row["has_old"]:
                    expired += await self._expire(row["agent_id"], kept)
            if len(rows) < _AGENTS_A_PAGE:
                return expired
            last = rows[-1]["agent_id"]

    async def _expire(self, agent: str, kept: timedelta) -> int:
        """All of one agent that is too old, as long as we may."""
        total = 0
        while expired := await self._expire_some(agent, kept):
            total += expired
            self._observer.expired(expired)
            if expired < _AT_ONCE:
                break
        return total

    async def _expire_some(self, agent: str, kept: timedelta) -> int:
        if not self._hold.may(agent):
            return 0
        async with self._postgres.transaction() as session:
            if not await self._hold.take(session, agent):
                return 0
            query = self._postgres.query
            expired = int(await session.fetchval(query("expire_events"), agent, kept, _AT_ONCE))
            if expired:
                await session.execute(query("bump_revision"), [agent])
            return expired
