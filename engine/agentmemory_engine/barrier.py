"""The barrier: where a position stands, and waiting until it is durable or searchable."""

from __future__ import annotations

import time

from agentmemory_engine.answers import State
from agentmemory_engine.consolidation import Consolidator
from agentmemory_engine.errors import BarrierTimeout, PositionLost
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.models import Models
from agentmemory_engine.positions import Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.progress import Progress

_POLL = 0.1


class Barrier:
    """Asks Postgres about positions, and hurries the consolidation of those that are waited for."""

    def __init__(self, postgres: Postgres, consolidator: Consolidator, progress: Progress, models: Models) -> None:
        self._postgres = postgres
        self._consolidator = consolidator
        self._progress = progress
        self._models = models

    async def state(self, agent: str, position: Position) -> State:
        """Where a turn of this agent stands. Raises StoreUnavailable."""
        row = await self._postgres.fetchrow(
            "position_state", position.shard, *position.entry, agent, digest_agent(agent), await self._models.number()
        )
        if row is None:
            return "lost"
        if row["suspect"]:
            if not row["there"]:
                return "lost"
        elif not row["reached"]:
            return "pending"
        return "durable" if row["queued"] else "searchable"

    async def wait(self, positions: list[tuple[str, Position]], until: State, seconds: float) -> None:
        """Return when all are `durable` (or `searchable`). Consolidates at once where this sidecar is the owner.

        Raises BarrierTimeout, PositionLost, StoreUnavailable.
        """
        deadline = time.monotonic() + seconds
        accepted = {"searchable"} if until == "searchable" else {"durable", "searchable"}
        waiting = list(dict.fromkeys(positions))
        while waiting:
            for _, position in waiting:
                self._consolidator.hurry(position.shard)
            while waiting and await self._reached(*waiting[-1], accepted):
                waiting.pop()
            left = deadline - time.monotonic()
            if waiting and left <= 0:
                raise BarrierTimeout(f"{len(waiting)} positions were not {until} within {seconds:g} s; ask again.")
            if waiting:
                await self._progress.wait(min(_POLL, left))

    async def _reached(self, agent: str, position: Position, accepted: set[str]) -> bool:
        state = await self.state(agent, position)
        if state == "lost":
            raise PositionLost(
                f"{position} was lost by a store that went back in time; report the turn again if it is known."
            )
        return state in accepted
