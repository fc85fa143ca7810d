"""Recall: the events of one agent that are nearest in meaning, ranked as an exhaustive scan would rank them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from agentmemory_engine.answers import Hit, Recalled
from agentmemory_engine.embedding import Embedder, EmbeddingUnavailable, Unembeddable, Vector, from_floats
from agentmemory_engine.errors import InvalidInput, RecallUnavailable
from agentmemory_engine.events import UNFLUSHED, Filter, Tail, Unflushed, event_of_record, read_unflushed
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.vectors import Vectors

MAX_HITS = 100


@dataclass(frozen=True, kw_only=True)
class RecallQuery:
    """What to look for: a text, or a vector made by the same model. `min_score` is from 0 to 1."""

    query: str | None = None
    vector: list[float] | None = None
    k: int = 5
    filter: Filter = field(default_factory=Filter)
    min_score: float = 0.0


class Recall:
    """Semantic recall, exact."""

    def __init__(
        self, postgres: Postgres, embedder: Embedder, vectors: Vectors, tail: Tail, settings: Settings
    ) -> None:
        self._postgres = postgres
        self._embedder = embedder
        self._vectors = vectors
        self._tail = tail
        self._settings = settings

    async def search(self, agent: str, query: RecallQuery) -> Recalled:
        """The agent's `k` best matches, never fewer while more of its embedded events pass the filter.

        `not_yet_searchable` counts acknowledged events that have no vector yet. Raises InvalidInput, RecallUnavailable,
        StoreUnavailable.
        """
        vector, (unflushed, unembedded) = await asyncio.gather(self._vector(query), self._not_yet(agent))
        hits = await self._nearest(agent, query, vector)
        if unflushed.erased is not None:
            hits = [hit for hit in hits if not unflushed.hides(hit.event.position.entry)]
        degraded = [UNFLUSHED] if unflushed.events is None else []
        return Recalled(hits, degraded=degraded, not_yet_searchable=unembedded + len(unflushed.events or ()))

    async def _not_yet(self, agent: str) -> tuple[Unflushed, int]:
        """What is in the journal, and how many events wait for a vector.

        Asked in the order in which events move, and before the search, so that one on its way is counted or found.
        """
        unflushed = await read_unflushed(self._tail, self._postgres, agent)
        if unflushed.erased is not None:
            # What Postgres has of the agent is from before: it is not waited for any more.
            return unflushed, 0
        waiting = await self._postgres.fetchrow("not_yet_embedded", agent)
        assert waiting is not None
        return unflushed, waiting["events"]

    async def _vector(self, query: RecallQuery) -> Vector:
        if not self._embedder.enabled:
            raise RecallUnavailable(
                "Semantic recall needs embeddings, and `embedding.provider` is None; choose Local, or ask the timeline."
            )
        if (query.query is None) == (query.vector is None):
            raise InvalidInput("Recall takes either `query` or `vector`.")
        if query.vector is not None:
            return self._given_vector(query.vector)
        assert query.query is not None
        if not query.query.strip():
            raise InvalidInput("`query` is empty; say what to look for.")
        try:
            return await self._embedder.embed_query(query.query)
        except Unembeddable as error:
            raise InvalidInput(f"The query cannot be embedded: {error}.") from error
        except EmbeddingUnavailable as error:
            raise RecallUnavailable(f"The embedding provider does not answer: {error}.") from error

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

    async def _nearest(self, agent: str, query: RecallQuery, vector: Vector) -> list[Hit]:
        """The best k events; as a long one has several vectors, more are looked at until k events are among them."""
        wanted = query.k + 8
        while True:
            rows = await self._rows(agent, query, vector, wanted)
            if len(rows) == query.k or not rows or rows[0]["compared"] < wanted:
                break
            wanted *= 4
        shard = self._settings.shard_of(agent)
        hits = []
        for row in rows:
            score = max(0.0, min(1.0, 1.0 - row["distance"]))
            hits.append(Hit(event_of_record(shard, row), score, {"semantic": score}))
        return [hit for hit in hits if hit.score >= query.min_score]

    async def _rows(self, agent: str, query: RecallQuery, vector: Vector, wanted: int) -> list[Any]:
        given = (agent, await self._vectors.model(), vector, wanted, query.k)
        conditions = query.filter
        if conditions == Filter():
            return list(await self._postgres.fetch("recall", *given))
        return list(await self._postgres.ask("recall_filtered", *given, *conditions.parameters()))
