"""Approximate recall: by an HNSW index with a filter on the agent, which goes on until enough pass the filter."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Filter
from agentmemory_engine.models import Models
from agentmemory_engine.postgres import Postgres, identifier
from agentmemory_engine.vector_index import index_name

_FEW = 5000
"""Vectors of an agent up to which a scan of all of them takes no longer than the index does, which is of all agents."""
_LOOK_EVERY = 30.0
"""Seconds between two looks at whether the index is there."""
_LEAST_CANDIDATES, _MOST_CANDIDATES = 100, 1000


class Approximate:
    """Asks the index, where it is there; who may not make it uses what others made."""

    def __init__(self, postgres: Postgres, models: Models) -> None:
        self._postgres = postgres
        self._models = models
        self.few = _FEW
        self._ready: dict[int, tuple[float, bool]] = {}

    async def nearest(self, agent: str, vector: bytes, wanted: int, k: int, conditions: Filter) -> list[Any] | None:
        """The rows of the `k` nearest events among about `wanted` vectors; None where the index cannot say.

        It cannot when it is not there, and when it finds less than `k`: it gives up after so many rows, and what is
        left may hold more. Nor is it asked about an agent with few vectors. Raises InvalidInput, StoreUnavailable.
        """
        model = await self._models.number()
        if model is None or not await self._is_ready(model) or await self._has_few(agent, model):
            return None
        candidates = min(_MOST_CANDIDATES, max(_LEAST_CANDIDATES, 2 * wanted))
        parts = {
            "vector": self._models.column, "dimensions": str(self._models.dimensions), "model": str(model),
        }  # fmt: skip
        plain = conditions == Filter()
        statement = self._postgres.query("recall_hnsw" if plain else "recall_hnsw_filtered", **parts)
        given = (agent, vector, wanted, k, *(() if plain else conditions.parameters()))
        first = self._postgres.query("approximately", candidates=str(candidates))
        try:
            async with self._postgres.transaction(first=first) as session:
                rows = await session.fetch(statement, *given)
        except asyncpg.DataError as error:
            raise InvalidInput(f"A value in the request cannot be compared: {error}.") from None
        return rows if len(rows) == k else None

    async def _has_few(self, agent: str, model: int) -> bool:
        row = await self._postgres.fetchrow("vectors_of", agent, model, self.few + 1)
        assert row is not None
        return int(row["vectors"]) <= self.few

    async def _is_ready(self, model: int) -> bool:
        looked, ready = self._ready.get(model, (-_LOOK_EVERY, False))
        if time.monotonic() - looked >= _LOOK_EVERY:
            name = f"{identifier(self._postgres.schema)}.{index_name(model)}"
            row = await self._postgres.fetchrow("index_ready", name)
            ready = row is not None and row["ready"]
            self._ready[model] = time.monotonic(), ready
        return ready
