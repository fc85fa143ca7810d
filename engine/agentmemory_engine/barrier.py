"""The barrier: where a position stands, and waiting until it is durable or searchable."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Container, Iterable

from agentmemory_engine.answers import State
from agentmemory_engine.consolidation import Consolidator
from agentmemory_engine.errors import BarrierTimeout, PositionLost
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.models import Models
from agentmemory_engine.positions import START, Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.progress import Progress
from agentmemory_engine.settings import Settings

_POLL = 0.1


class Barrier:
    """Asks Postgres about positions, and hurries the consolidation of those that are waited for."""

    def __init__(
        self, postgres: Postgres, consolidator: Consolidator, progress: Progress, settings: Settings, models: Models
    ) -> None:
        self._postgres = postgres
        self._settings = settings
        self._consolidator = consolidator
        self._progress = progress
        self._models = models

    async def durable(self, agent: str) -> Entry:
        """Up to where the agent's shard is durable. Raises StoreUnavailable."""
        row = await self._postgres.fetchrow("shard_durable", self._settings.shard_of(agent))
        return START if row is None else Entry(row["durable_opening"], row["durable_sequence"])

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
        await await_positions(
            self.state, self._progress, positions, until, seconds, lambda one: self._consolidator.hurry(one.shard)
        )


async def await_positions(
    state_of: Callable[[str, Position], Awaitable[State]], progress: Progress,
    positions: Iterable[tuple[str, Position]], until: State, seconds: float,
    hurry: Callable[[Position], None] = lambda _: None,
) -> None:  # fmt: skip
    """Return when all are `durable` (or `searchable`). Raises BarrierTimeout, PositionLost."""
    deadline = time.monotonic() + seconds
    accepted: set[State] = {"searchable"} if until == "searchable" else {"durable", "searchable"}
    waiting = list(dict.fromkeys(positions))
    while waiting:
        for _, position in waiting:
            hurry(position)
        while waiting and _reached(waiting[-1][1], await state_of(*waiting[-1]), accepted):
            waiting.pop()
        left = deadline - time.monotonic()
        if waiting and left <= 0:
            raise BarrierTimeout(f"{len(waiting)} positions were not {until} within {seconds:g} s; ask again.")
        if waiting:
            await progress.wait(min(_POLL, left))


def _reached(position: Position, state: State, accepted: Container[State]) -> bool:
    if state == "lost":
        raise PositionLost(
            f"{position} was lost by a store that went back in time; report the turn again if it is known."
        )
    return state in accepted
