"""Semantic recall: the events of one agent that are nearest in meaning, as a scan of all, or an index, ranks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from agentmemory_engine.answers import Hit
from agentmemory_engine.approximate import Approximate
from agentmemory_engine.embedding import Embedder, EmbeddingUnavailable, Unembeddable, Vector, from_floats
from agentmemory_engine.errors import InvalidInput, RecallUnavailable
from agentmemory_engine.events import Filter
from agentmemory_engine.models import Models
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_record

Strategy = Literal["hybrid", "semantic", "keyword"]
HYBRID: Final = "hybrid"
SEMANTIC: Final = "semantic"
KEYWORD: Final = "keyword"
BACK_FILL: Final = "back_fill"
"""What an answer lacks while older events and facts have no vector of a new model yet."""


class Made(NamedTuple):
    """What became of a query: its vector, None where keywords have to do."""

    vector: Vector | None


@dataclass(frozen=True)
class Waiting:
    """How much has no vector yet; what of it is `old` was there before the model."""

    count: int
    old: int


class QueryVectors:
    """Makes vectors of what is asked for."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def enabled(self) -> bool:
        return self._embedder.enabled

    async def vector(self, query: str | None, given: list[float] | None) -> Vector:
        """Of the text, or the one given. Raises InvalidInput, RecallUnavailable."""
        if not self._embedder.enabled:
            raise RecallUnavailable(
                "Semantic recall needs embeddings, and `embedding.provider` is None; choose Local, or ask by keyword."
            )
        if given is not None:
            return self._given_vector(given)
        assert query is not None
        try:
            return await self._embedder.embed_query(query)
        except Unembeddable as error:
            raise InvalidInput(f"The query cannot be embedded: {error}.") from error
        except EmbeddingUnavailable as error:
            raise RecallUnavailable(f"The embedding provider does not answer: {error}.") from error

    async def vector_for(
        self, strategy: Strategy, query: str | None, given: list[float] | None = None
    ) -> Vector | None:
        """The vector that this strategy goes by; None where keywords have to do.

        Raises InvalidInput, RecallUnavailable, where meaning alone is asked for.
        """
        if strategy == KEYWORD or (strategy == HYBRID and not self.enabled):
            return None
        try:
            return await self.vector(query, given)
        except (RecallUnavailable, InvalidInput):
            if strategy == SEMANTIC:
                raise
            return None

    def _given_vector(self, vector: list[float]) -> Vector:
        if len(vector) != self._embedder.dimensions:
            raise InvalidInput(
                f"`vector` has {len(vector)} dimensions and this memory has {self._embedder.dimensions}; "
                f"make it with {self._embedder.model}."
            )
        try:
            return from_floats(vector)
        except ValueError as error:
            raise InvalidInput(f"`vector` cannot be compared: {error}.") from None


class Semantic(QueryVectors):
    """Compares a vector with those of an agent's events: with all of them, unless an index was asked for."""

    def __init__(self, postgres: Postgres, embedder: Embedder, models: Models, settings: Settings) -> None:
        super().__init__(embedder)
        self._postgres = postgres
        self._models = models
        self._approximate = Approximate(postgres, models)
        self._settings = settings

    async def model(self) -> int | None:
        """The number of the model that vectors are compared by here; None without a provider."""
        return await self._models.number()

    async def distances(self, agent: str, vector: Vector) -> tuple[bytes, bytes]:
        """The cosine distance of each of the agent's vectors: ids of 16 bytes, distances of 4 (big-endian floats)."""
        row = await self._postgres.fetchrow(
            "distances", agent, await self._models.number(), vector, vector=self._models.column
        )
        assert row is not None
        return row["ids"] or b"", row["distances"] or b""

    async def nearest(
        self, agent: str, vector: Vector, k: int, conditions: Filter, min_score: float
    ) -> tuple[list[Hit], bool]:
        """The best k events, and whether an index that may miss some named them."""
        rows = None
        if self._settings.index == "HNSW":
            rows = await self._approximate.nearest(agent, vector, k + 8, k, conditions)
        approximate = rows is not None
        if rows is None:
            rows = await self._scan(agent, vector, k, conditions)
        shard = self._settings.shard_of(agent)
        hits = []
        for row in rows:
            score = max(0.0, min(1.0, 1.0 - row["distance"]))
            hits.append(Hit(event_of_record(shard, row), score, {"semantic": score}))
        return [hit for hit in hits if hit.score >= min_score], approximate

    async def _scan(self, agent: str, vector: Vector, k: int, conditions: Filter) -> list[Any]:
        """The best k of all; as a long event has several vectors, more are looked at until k events are among them."""
        wanted = k + 8
        while True:
            rows = await self._rows(agent, conditions, vector, wanted, k)
            if len(rows) == k or not rows or rows[0]["compared"] < wanted:
                return rows
            wanted *= 4

    async def _rows(self, agent: str, conditions: Filter, vector: Vector, wanted: int, k: int) -> list[Any]:
        given, column = (agent, await self._models.number(), vector, wanted, k), self._models.column
        if conditions == Filter():
            return list(await self._postgres.fetch("recall", *given, vector=column))
        return list(await self._postgres.ask("recall_filtered", *given, *conditions.parameters(), vector=column))
