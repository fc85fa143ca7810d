"""Status of a memory that has only Postgres. What only looks at one loads no more than this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentmemory_engine.answers import Model, Status
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.schema import check_schema
from agentmemory_engine.settings import Settings
from agentmemory_engine.status import LATE, PATIENCE, reason_of, within


class Reporter:
    """Answers for the whole memory. Nothing is ever pending: a turn is durable when it is accepted."""

    def __init__(self, postgres: Postgres, settings: Settings, model: Callable[[], int | None] = lambda: None) -> None:
        """`model` answers the number of the model that this process embeds by, as far as it is known."""
        self._postgres = postgres
        self._settings = settings
        self._model = model

    async def status(self) -> Status:
        """Never raises for a store that is down: its part is None, and `degraded` names it."""
        found = await within(PATIENCE, self._found())
        counts, models = found or (None, None)
        there = counts is not None
        return Status(
            mode=self._settings.mode,
            lag=0.0 if there else None,
            pending=0 if there else None,
            dead_letters=counts["dead_letters"] if counts else None,
            quarantined=counts["quarantined"] if counts else None,
            unembedded=counts["unembedded"] if counts else None,
            unembeddable=counts["unembeddable"] if counts else None,
            model=self._model(),
            models=models,
            undistilled=counts["undistilled"] if counts else None,
            undistillable=counts["undistillable"] if counts else None,
            persistence="write-ahead log" if there else "Unknown",
            shards=[],
            degraded=[] if there else ["postgres"],
        )

    async def _found(self) -> tuple[dict[str, int], list[Model]] | None:
        try:
            row = await self._postgres.fetchrow("counts", self._model())
            models = [Model.of(one) for one in await self._postgres.fetch("models")]
        except Unavailable:
            return None
        return None if row is None else (dict(row), models)

    async def check(self, identity: Callable[[], Awaitable[str]] | None = None) -> dict[str, str]:
        """What keeps a turn from being accepted; empty when nothing does. Answers within seconds."""

        async def ask() -> None:
            await (identity or self._check_schema)()
            await self._postgres.fetchrow("takes_writes")

        reason = await within(PATIENCE, reason_of(ask()))
        if reason is None:
            reason = LATE
        return {"postgres": reason} if reason else {}

    async def _check_schema(self) -> str:
        async with self._postgres.session() as session:
            return await check_schema(session, self._settings)
