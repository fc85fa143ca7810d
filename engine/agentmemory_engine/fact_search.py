"""Search in knowledge: every fact that is believed is scored, by meaning and by its words."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from agentmemory_engine.answers import Fact, FactHit, FoundFacts
from agentmemory_engine.bm25 import Terms, count_terms, score_texts
from agentmemory_engine.embedding import Vector
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.facts import FactFilter, fact_of
from agentmemory_engine.fusion import scale, weigh
from agentmemory_engine.models import Models
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.semantic import (
    BACK_FILL,
    HYBRID,
    KEYWORD,
    SEMANTIC,
    QueryVectors,
    Semantic,
    Strategy,
    Waiting,
)

_HELD_FACTS = 20_000
_SLICE = 64
"""Texts that are taken apart before others get their turn."""


@dataclass(frozen=True, kw_only=True)
class FactQuery:
    """What to look for. `min_score` is from 0 to 1."""

    query: str
    k: int = 5
    strategy: Strategy = "hybrid"
    filter: FactFilter = field(default_factory=FactFilter)
    min_score: float = 0.0


@dataclass(frozen=True)
class ScoredFact:
    """A fact that matches, and how well; each score is from 0 to 1."""

    id: UUID
    believed_from: datetime
    score: float
    scores: dict[str, float]

    @property
    def rank(self) -> tuple[float, datetime, UUID]:
        return self.score, self.believed_from, self.id


class FactSearching(ABC):
    """Searches facts; keeps the words of those that were searched last, which never change under an id."""

    def __init__(self, semantic: QueryVectors) -> None:
        self._semantic = semantic
        self._terms: OrderedDict[str, dict[UUID, Terms]] = OrderedDict()

    async def search(self, agent: str, query: FactQuery) -> FoundFacts:
        """The agent's `k` best facts, among those that pass the filter. A filter leaves the scores as they are.

        `hybrid` goes by words alone where there is no embedding provider, and says so in `degraded` while it is down; a
        search by meaning says so, too, while some of the facts have no vector of a new model yet.
        Raises InvalidInput, RecallUnavailable, StoreUnavailable.
        """
        if not query.query.strip():
            raise InvalidInput("`query` is empty; say what to look for.")
        vector, degraded = await self._vector(query)
        scored, waiting = await self.scan(agent, query.query, vector, query.strategy, query.filter)
        if waiting.old:
            degraded.append(BACK_FILL)
        best = sorted((one for one in scored if one.score >= query.min_score), key=lambda one: one.rank, reverse=True)
        return FoundFacts(await self.hits(agent, best[: query.k]), waiting.count, degraded)

    async def scan(
        self, agent: str, text: str | None, vector: Vector | None, strategy: Strategy, conditions: FactFilter
    ) -> tuple[list[ScoredFact], Waiting]:
        """All facts that match and pass the filter, in no order, and how many that pass have no vector yet.

        `text` may be missing where the strategy is semantic. Raises InvalidInput, StoreUnavailable.
        """
        rows = await self._scan(agent, conditions, vector)
        words = [0.0] * len(rows)
        if strategy != SEMANTIC:
            terms = await self._terms_of(agent, [row["id"] for row in rows])
            words = score_texts(count_terms(text or ""), terms)
        passing = [(row, word) for row, word in zip(rows, words, strict=True) if row["passes"]]
        scored = [one for row, word in passing if (one := _score(row, word, strategy, vector)) is not None]
        waiting = sum(row["distance"] is None for row, _ in passing) if vector is not None else 0
        return scored, Waiting(waiting, waiting if rows and rows[0]["filling"] else 0)

    async def _vector(self, query: FactQuery) -> tuple[Vector | None, list[str]]:
        """The query's vector, where one is wanted and can be had; else what the search has to do without."""
        vector = await self._semantic.vector_for(query.strategy, query.query)
        missed = vector is None and query.strategy == HYBRID and self._semantic.enabled
        return vector, [SEMANTIC] if missed else []

    async def _terms_of(self, agent: str, ids: list[UUID]) -> list[Terms]:
        """The words of these facts, in order. Erased meanwhile: none."""
        held = self._terms.get(agent, {})
        terms = {identity: held[identity] for identity in ids if identity in held}
        missing = [identity for identity in ids if identity not in terms]
        for number, fact in enumerate(await self._facts(agent, missing) if missing else [], start=1):
            terms[fact.id] = count_terms(f"{fact.key or ''} {fact.topic} {fact.content}")
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        self._keep(agent, terms)
        return [terms.get(identity, Terms({}, 0)) for identity in ids]

    def _keep(self, agent: str, terms: dict[UUID, Terms]) -> None:
        """For the next search. Let go of the agents that were not asked for the longest, where much is held."""
        self._terms[agent] = terms
        self._terms.move_to_end(agent)
        while len(self._terms) > 1 and sum(map(len, self._terms.values())) > _HELD_FACTS:
            self._terms.popitem(last=False)

    async def hits(self, agent: str, best: list[ScoredFact]) -> list[FactHit]:
        """The facts themselves, in this order; without those that were erased meanwhile. Raises StoreUnavailable."""
        facts = {fact.id: fact for fact in (await self._facts(agent, [one.id for one in best]) if best else [])}
        return [FactHit(facts[one.id], one.score, one.scores) for one in best if one.id in facts]

    @abstractmethod
    async def _scan(self, agent: str, wanted: FactFilter, vector: Vector | None) -> Sequence[Mapping[str, Any]]:
        """All that is believed at the filter's time: `id`, `believed_from`, whether it `passes` the filter,
        the least `distance` of its vectors (None: it has none), and whether a new model is still `filling`."""

    @abstractmethod
    async def _facts(self, agent: str, ids: list[UUID]) -> list[Fact]:
        """These facts, in any order, without those that are erased."""


class FactSearch(FactSearching):
    """Searches the facts in Postgres."""

    def __init__(self, postgres: Postgres, semantic: Semantic, models: Models) -> None:
        super().__init__(semantic)
        self._postgres = postgres
        self._models = models

    async def _scan(self, agent: str, wanted: FactFilter, vector: Vector | None) -> Sequence[Mapping[str, Any]]:
        model = None if vector is None else await self._models.number()
        rows: Any = await self._postgres.ask(
            "scan_facts", agent, *wanted.parameters(), model, vector, vector=self._models.column
        )
        return cast(Sequence[Mapping[str, Any]], rows)

    async def _facts(self, agent: str, ids: list[UUID]) -> list[Fact]:
        return [fact_of(row) for row in await self._postgres.fetch("get_facts", agent, ids)]


def _score(row: Any, word: float, strategy: Strategy, vector: Vector | None) -> ScoredFact | None:
    """How well one fact matches; None where it does not: no word of the query is in it, and no vector is there."""
    distance = row["distance"]
    if distance is None and not word:
        return None
    scores = {} if distance is None else {SEMANTIC: max(0.0, min(1.0, 1.0 - distance))}
    if strategy != SEMANTIC:
        scores["keyword"] = word
    score = scores.get(SEMANTIC, 0.0)
    if strategy == KEYWORD or vector is None:
        score = word
    elif strategy == HYBRID:
        score = scale(weigh(score, word))
    return ScoredFact(row["id"], row["believed_from"], score, scores)
