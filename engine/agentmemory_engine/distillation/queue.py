"""What is still to be distilled, and what was given up: asked for, listed, forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from agentmemory_engine.answers import Distillation
from agentmemory_engine.cursors import format_place, parse_place
from agentmemory_engine.declared import Declared
from agentmemory_engine.errors import DistillationOff, NoDistillation
from agentmemory_engine.keys import check_agent
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.sessions import Sessions, check_session
from agentmemory_engine.settings import Settings


class Place(NamedTuple):
    """Where a page ended."""

    asked_at: Annotated[datetime, Meta(tz=True)]
    agent: str
    session: str


class Distillations:
    """The requests of one memory; `enabled` says whether any is served. Every call raises StoreUnavailable."""

    def __init__(
        self, postgres: Postgres, declared: Declared, sessions: Sessions, settings: Settings, *, enabled: bool
    ) -> None:
        self._postgres = postgres
        self._declared = declared
        self._sessions = sessions
        self._settings = settings
        self._enabled = enabled

    async def ask(self, agent: str, session: str) -> Distillation:
        """Have facts drawn from all of a session, ended or not, whatever was drawn or given up before.

        What was drawn before and is not drawn again is believed no longer, once this is done. Raises DistillationOff,
        NoSession, InvalidInput.
        """
        if not self._enabled:
            raise DistillationOff("Facts are drawn from sessions where `spec.distillation` names a model; add it.")
        await self._sessions.read(agent, session)
        async with self._declared.transaction(agent, alone=True) as connection:
            query = self._postgres.query("ask_distillation")
            row = await connection.fetchrow(query, agent, session, self._settings.shard_of(agent))
        return _distillation(row)

    async def page(
        self, *, given_up: bool | None = None, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Distillation], str | None]:
        """Those that wait, those that were given up, or (None) both, as they were asked for; what continues the page.

        Raises InvalidInput.
        """
        after = parse_place(cursor, Place) if cursor else (None, None, None)
        rows = await self._postgres.ask("list_distillations", *after, given_up, limit + 1)
        found = [_distillation(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return found, None
        last = found[-1]
        return found, format_place(Place(last.asked_at, last.agent, last.session))

    async def forget(self, agent: str, session: str) -> None:
        """Draw nothing more from it; what was drawn stays. Raises NoDistillation, InvalidInput."""
        dropped = await self._postgres.ask("drop_distillation", check_agent(agent), check_session(session))
        if not dropped:
            raise NoDistillation("Nothing is asked for of this session: it may be done.")


def _distillation(row: Any) -> Distillation:
    return Distillation(
        agent=row["agent_id"],
        session=row["session_id"],
        asked_at=row["asked_at"],
        attempts=row["attempts"],
        refused=row["refused"],
        given_up=row["given_up"],
    )
