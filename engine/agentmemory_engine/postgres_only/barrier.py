"""The barrier: what is accepted is durable, and what is embedded is searchable."""

from __future__ import annotations

from agentmemory_engine.answers import State
from agentmemory_engine.barrier import await_positions
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.models import Models
from agentmemory_engine.positions import START, Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.progress import Progress


class Barrier:
    """Asks Postgres about positions."""

    def __init__(self, postgres: Postgres, progress: Progress, models: Models) -> None:
        self._postgres = postgres
        self._progress = progress
        self._models = models

    async def durable(self, agent: str) -> Entry:
        """Up to where all of the agent is durable. Raises StoreUnavailable."""
        row = await self._postgres.fetchrow("last_position", digest_agent(agent))
        return START if row is None else Entry(row["opening"], row["sequence"])

    async def state(self, agent: str, position: Position) -> State:
        """Where a turn of this agent stands; one that was never accepted is `lost`. Raises StoreUnavailable."""
        model = await self._models.number()
        row = await self._postgres.fetchrow("agent_position_state", *position.entry, agent, digest_agent(agent), model)
        if row is None or not row["given"] or (row["suspect"] and not row["there"]):
            return "lost"
        return "durable" if row["queued"] else "searchable"

    async def wait(self, positions: list[tuple[str, Position]], until: State, seconds: float) -> None:
        """Return when all are `durable` (or `searchable`). Raises BarrierTimeout, PositionLost, StoreUnavailable."""
        await await_positions(self.state, self._progress, positions, until, seconds)
