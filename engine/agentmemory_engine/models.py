"""Models: by which ones a memory's vectors are, side by side, and which of them recall goes by.

A model that some sidecar has is kept up: what is new is queued for it, and a back-fill goes through what was there
before. Once that is through, the switch, one row in Postgres, says that recall goes by it. A model that no sidecar has
any more is retired: its vectors stay, for a way back, until their removal is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from agentmemory_engine.answers import Model
from agentmemory_engine.embedding import Embedder
from agentmemory_engine.errors import ModelInUse, NoModel, Unavailable
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres, Session, literal
from agentmemory_engine.settings import Settings
from agentmemory_engine.vector_index import column_of

logger = logging.getLogger(__name__)

_BEAT = 30.0
_SILENT = timedelta(minutes=5)
_AT_ONCE = 2000
_FIRST = ("", UUID(int=0))


class Models:
    """The models of one memory, as this sidecar, which has one of them or none, sees and tends them."""

    def __init__(self, postgres: Postgres, embedder: Embedder, settings: Settings, observer: Observer) -> None:
        self._postgres = postgres
        self._embedder = embedder
        self._instance = settings.instance
        self._observer = observer
        self._number: int | None = None
        self._claimed = False
        self.filling = True
        """Whether the back-fill of our model may have something left, as far as is known."""
        self._unwanted: list[int] = []
        self._removal: dict[str, tuple[str, UUID] | None] = {}
        """How far the vectors of those unwanted are gone."""

    @property
    def known(self) -> int | None:
        """The number of the embedder's model, as far as it is known."""
        return self._number

    @property
    def column(self) -> str:
        """Where vectors of the embedder's model stand."""
        return column_of(self._embedder.dimensions)

    @property
    def dimensions(self) -> int:
        """The length of the embedder's vectors."""
        return self._embedder.dimensions

    async def number(self) -> int | None:
        """The number of the embedder's model in this memory, which is kept up from now on; None without a provider.

        Raises StoreUnavailable.
        """
        if self._number is None and self._embedder.enabled:
            self._number = await self._join()
        return self._number

    async def _join(self) -> int:
        number, kept = await self._register()
        await self._postgres.fetch("announce_model", self._instance, number)
        if not kept:
            await self._keep(number)
        return number

    async def _register(self) -> tuple[int, bool]:
        given = self._embedder.model, self._embedder.dimensions
        # Another process may register it between the two halves of the statement.
        row = await self._postgres.fetchrow("register_model", *given)
        row = row or await self._postgres.fetchrow("register_model", *given)
        assert row is not None
        return row["model"], row["kept"]

    async def _keep(self, number: int) -> None:
        async with self._postgres.transaction() as session:
            # A batch that was begun before does not queue for this model: it is committed before the back-fill looks.
            await session.execute(self._postgres.query("lock_models"), self._lock)
            await session.execute(self._postgres.query("keep_model"), number)
        logger.info("embedding by %s: what is new from now on, and then what was there before", self._embedder.model)

    @property
    def _lock(self) -> str:
        return f"{self._postgres.schema}/models"

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Session]:
        """A transaction that queues what it stores for every model that is kept up. Raises StoreUnavailable."""
        await self.number()
        share = self._postgres.query("share_models", lock=literal(self._lock))
        async with self._postgres.transaction(first=share) as session:
            yield session

    async def claim(self) -> None:
        """Have recall go by our model, once, when it covers all that there is. Raises StoreUnavailable.

        Once only, as long as it goes by one that is kept up: sidecars of two models, both of which cover all, would
        turn the switch back and forth.
        """
        number = await self.number()
        self.filling = any(one.number == number and not one.complete for one in await self.list())
        if number is None:
            return
        if await self._postgres.fetchrow("take_switch", number, not self._claimed) is not None:
            logger.info("recall goes by %s from now on", self._embedder.model)
        self._claimed = self._claimed or not self.filling

    async def complete(self) -> bool:
        """Note that our model covers all, if it does, and switch to it; whether that was news."""
        if await self._postgres.fetchrow("complete_model", self._number) is None:
            return False
        await self.claim()
        return True

    async def run(self) -> None:
        """Tell that we are there, and tend what nobody else does, until cancelled."""
        while True:
            try:
                await self.beat()
            except Unavailable as error:
                logger.debug("the models wait: %s", error)
            except Exception:
                self._observer.failed("embedding")
                logger.exception("tending the models failed; it is tried again")
            await asyncio.sleep(_BEAT)

    async def beat(self, *, silent: timedelta = _SILENT) -> None:
        """One round: be counted, take the switch where it is ours, retire models that nobody has.

        Raises StoreUnavailable. `silent` is how long a sidecar has not been seen that is counted no more.
        """
        number = await self.number()
        row = await self._postgres.fetchrow("announce_model", self._instance, number)
        if row is not None and not row["kept"]:
            # We were away for so long that it was retired.
            self._number = None
            await self.number()
        await self.claim()
        for retired in await self._postgres.fetch("retire_models", silent):
            logger.info("no sidecar embeds by %s any more: it is not kept up, and its vectors stay", retired["name"])
        while await self._clean():
            pass

    async def leave(self) -> None:
        """Be counted no more. Raises StoreUnavailable."""
        await self._postgres.fetch("forget_model_user", self._instance)

    async def _clean(self) -> bool:
        """Delete a part of what retired models have left, and are not to keep; whether there may be more."""
        query = self._postgres.query
        async with self._postgres.transaction() as session:
            retired = await session.fetch(query("lock_retired_models"))
            if not retired:
                return False
            dropped = await session.fetchval(query("drop_queued"), [row["model"] for row in retired], _AT_ONCE)
            unwanted = sorted(row["model"] for row in retired if row["unwanted"])
            return await self._remove(session, unwanted) or dropped > 0

    async def _remove(self, session: Session, models: list[int]) -> bool:
        """Delete vectors of one page of events or facts; whether there is more to look at."""
        if models != self._unwanted:
            # Of one more, all is still there.
            self._unwanted, self._removal = models, {}
        if not models:
            return False
        query = self._postgres.query
        for name in ("drop_vectors_of_events", "drop_vectors_of_facts"):
            after = self._removal.get(name, _FIRST)
            if after is None:
                continue
            row = await session.fetchrow(query(name), models, *after, _AT_ONCE)
            self._removal[name] = None if row is None else (row["agent_id"], row["id"])
            return True
        self._removal = {}
        await session.execute(query("end_removal"), models)
        return False

    async def list(self) -> list[Model]:
        """All there are, oldest first. Raises StoreUnavailable."""
        return [Model.of(row) for row in await self._postgres.fetch("models")]

    async def remove(self, number: int) -> None:
        """Have the vectors of a model deleted that is neither kept up nor recalled by. Raises NoModel, ModelInUse."""
        row = await self._postgres.fetchrow("remove_model", number)
        if row is None:
            raise NoModel("There is no such model; its number is as the list of models gives it.")
        if not row["removed"]:
            raise ModelInUse(
                "Recall goes by this model, or a sidecar embeds by it or did so within the last minutes: its vectors "
                "stay. Change `spec.embedding`, restart the agents, and ask again once the switch is done."
            )
