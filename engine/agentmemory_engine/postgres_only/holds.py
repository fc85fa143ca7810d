"""Holds: how retention keeps others from an agent's events, where no shard has an owner."""

from __future__ import annotations

from agentmemory_engine.keys import digest_agent
from agentmemory_engine.postgres import Postgres, Session


class AgentHold:
    """Holds an agent by its row; every sidecar may."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def may(self, agent: str) -> bool:
        """As Hold has it."""
        return True

    async def take(self, session: Session, agent: str) -> bool:
        """As Hold has it."""
        await session.execute(self._postgres.query("lock_agent"), digest_agent(agent))
        return True
