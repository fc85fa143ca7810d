"""What is declared: knowledge and sessions, which a request writes to Postgres at once, and which have no position."""

from __future__ import annotations

from agentmemory_engine.postgres import Postgres, Session


async def lock_declared(session: Session, postgres: Postgres, agent: str) -> None:
    """Wait until nobody else writes the agent's knowledge, or marks its erasure; until the end of the transaction.

    Taken before any row: whoever locks rows first and then waits here could be waited for.
    """
    await session.execute(postgres.query("lock_knowledge"), f"{postgres.schema}/knowledge/{agent}")
