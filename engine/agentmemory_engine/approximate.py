"""Approximate recall: by an HNSW index with a filter on the agent, which goes on until enough pass the filter."""

from __future__ import annotations

import math
import time
from typing import Any

import asyncpg

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Filter
from agentmemory_engine.models import Models
from agentmemory_engine.postgres import Postgres, identifier
from agentmemory_engine.vector_index import index_name

_FEW = 5000
"""Vectors of an agent up to which a scan of them is never slower."""
_WORTH = 45
"""So many vectors are compared by a scan in the time in which the index gives one."""
_GIVES_UP = 1000
"""Vectors that the index gives at most, or a tenth of what a scan would be as fast with."""
_LOOK_EVERY = 30.0
"""Seconds between two looks at whether the index is there."""
_LEAST_CANDIDATES, _MOST_CANDIDATES = 100, 1000


class Approximate:
    """Asks the index, where it is there; who may not make it uses what others made."""

    def __init__(self, postgres: Postgres, models: Models) -> None:
        self._postgres = postgres
        self._models = models
        self.few, self.worth = _FEW, _WORTH
        self._size: dict[int, tuple[float, float | None]] = {}

    async def nearest(self, agent: str, vector: bytes, wanted: int, k: int, conditions: Filter) -> list[Any] | None:
        """The rows of the `k` nearest events among about `wanted` vectors; None where the index cannot say.

        It cannot when it is not there, and when it finds less than `k`: it gives up after so many rows, and what is
        left may hold more. Nor is it asked about an agent with few vectors. Raises InvalidInput, StoreUnavailable.
        """
        model = await self._models.number()
        size = None if model is None else await self._size_of(model)
        if model is None or size is None:
            return None
        # Of one agent are as many of what it gives as its share is: a scan of a small share is faster.
        few = max(self.few, math.isqrt(int(self.worth * wanted * size)))
        if await self._has_few(agent, model, few):
            return None
        candidates = min(_MOST_CANDIDATES, max(_LEAST_CANDIDATES, 2 * wanted))
        parts = {
            "vector": self._models.column, "dimensions": str(self._models.dimensions), "model": str(model),
        }  # fmt: skip
        plain = conditions == Filter()
        statement = self._postgres.query("recall_hnsw" if plain else "recall_hnsw_filtered", **parts)
        given = (agent, vector, wanted, k, *(() if plain else conditions.parameters()))
        tuples = max(_GIVES_UP, few // 10)
        first = self._postgres.query("approximately", candidates=str(candidates), tuples=str(tuples))
        try:
            async with self._postgres.transaction(first=first) as session:
                rows = await session.fetch(statement, *given)
        except asyncpg.DataError as error:
            raise InvalidInput(f"A value in the request cannot be compared: {error}.") from None
        return rows if len(rows) == k else None

    async def _has_few(self, agent: str, model: int, few: int) -> bool:
        row = await self._postgres.fetchrow("vectors_of", agent, model, few + 1)
        assert row is not None
        return int(row["vectors"]) <= few

    async def _size_of(self, model: int) -> float | None:
        """About how many vectors the index holds; None where it is not there, or not whole."""
        looked, size = self._size.get(model, (-_LOOK_EVERY, None))
        if time.monotonic() - looked >= _LOOK_EVERY:
            name = f"{identifier(self._postgres.schema)}.{index_name(model)}"
            row = await self._postgres.fetchrow("index_size", name)
            size = None if row is None else max(0.0, row["size"])
            self._size[model] = time.monotonic(), size
        return size
