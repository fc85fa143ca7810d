"""The back-fill: finds what was there before a model, or while it was away, and has no vector of it.

It goes through the events and then the facts, in the order of their keys, a page at a time. A page is one short
transaction that any sidecar with the model may carry out; where it stopped stands in Postgres.
"""

from __future__ import annotations

from typing import Any

from agentmemory_engine.models import Models
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.settings import Settings

_PAGE = 2000
_EVENTS, _FACTS = 0, 1


class Backfill:
    """Looks for what lacks a vector of this sidecar's model, and queues it behind all that is new."""

    def __init__(self, postgres: Postgres, models: Models, settings: Settings) -> None:
        self._postgres = postgres
        self._models = models
        self._settings = settings

    async def step(self) -> int:
        """Look at one page, or find that there is none left; how much was done, 0 where nothing is left to do here.

        To be asked when nothing waits in the queues. Raises StoreUnavailable.
        """
        model = await self._models.number()
        if model is None:
            return 0
        for stage in (_EVENTS, _FACTS):
            row = await self._look(model, stage)
            if row["scanned"]:
                return int(row["scanned"])
            if row["ours"]:
                await self._postgres.fetch("end_backfill_stage", model, stage)
        return int(await self._models.complete())

    async def _look(self, model: int, stage: int) -> Any:
        async with self._postgres.transaction() as session:
            query = self._postgres.query
            row = await session.fetchrow(
                query("backfill_events" if stage == _EVENTS else "backfill_facts"), model, _PAGE
            )
            assert row is not None
            if row["scanned"]:
                await session.execute(query("begin_backfill"), model)
                await self._queue(session, model, stage, row)
                await session.execute(
                    query("advance_backfill"), model, row["last_agent"], row["last_id"], row["scanned"]
                )
        return row

    async def _queue(self, session: Session, model: int, stage: int, row: Any) -> None:
        if not row["ids"]:
            return
        shards = [self._settings.shard_of(agent) for agent in row["agents"]]
        given = model, row["agents"], row["ids"], shards
        if stage == _EVENTS:
            await session.execute(
                self._postgres.query("queue_backfill_events"), *given, row["openings"], row["sequences"]
            )
        else:
            await session.execute(self._postgres.query("queue_backfill_facts"), *given)
