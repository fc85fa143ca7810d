"""Recall over events and knowledge at once: one ranking, by the same measure."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from agentmemory_engine.answers import FactHit, Hit, Recalled, RecalledBoth
from agentmemory_engine.events import Filter
from agentmemory_engine.fact_search import FactSearching, ScoredFact
from agentmemory_engine.facts import FactFilter
from agentmemory_engine.recall import POOL, RecallQuery, diverse, text_of_event
from agentmemory_engine.semantic import BACK_FILL, HYBRID, SEMANTIC, Made, QueryVectors, Strategy, Waiting

Source = Literal["events", "knowledge"]
EVENTS: Final = "events"
KNOWLEDGE: Final = "knowledge"


class SearchingMade(Protocol):
    """Finds events, also by a vector that is made already."""

    async def search(self, agent: str, query: RecallQuery, made: Made | None = None) -> Recalled:
        """See recall.Recall."""
        ...


class RecallOfBoth:
    """Facts are scored as events are: likeness in meaning and in words, weighed alike, and how new they are.

    A fact is of no time that a query names, and takes part in such a query as an event far from it does. Its age counts
    from when it was believed.
    """

    def __init__(self, recall: SearchingMade, facts: FactSearching, semantic: QueryVectors) -> None:
        self._recall = recall
        self._facts = facts
        self._semantic = semantic

    async def search(self, agent: str, query: RecallQuery, include: Collection[Source]) -> RecalledBoth:
        """The `k` best of what is included. Raises InvalidInput, RecallUnavailable, StoreUnavailable.

        The filter holds for facts as well: a fact has no type, role or session, so that none passes where one of these
        is asked for; its time is when it was believed.
        """
        strategy = query.checked()
        made = Made(await self._semantic.vector_for(strategy, query.query, query.vector))
        pool = replace(query, k=query.k * (POOL if query.diversity else 1), diversity=0.0)
        events, (facts, waiting) = await asyncio.gather(
            self._events(agent, pool, include, made), self._matching(agent, query, strategy, include, made)
        )
        timed = any("time" in hit.scores for hit in events.hits)
        ranked = [_ranked(fact, query, strategy, made, timed=timed) for fact in facts]
        best = sorted((one for one in ranked if one.score >= query.min_score), key=lambda one: one.rank, reverse=True)
        hits: list[Hit | FactHit] = [*events.hits, *await self._facts.hits(agent, best[: pool.k])]
        hits.sort(key=_order, reverse=True)
        if query.diversity:
            hits = diverse(hits, query, _text_of)
        degraded = list(events.degraded)
        if made.vector is None and strategy == HYBRID and self._semantic.enabled and SEMANTIC not in degraded:
            degraded.append(SEMANTIC)
        if waiting.old and BACK_FILL not in degraded:
            degraded.append(BACK_FILL)
        return RecalledBoth(hits[: query.k], events.approximate, degraded, events.not_yet_searchable + waiting.count)

    async def _events(self, agent: str, query: RecallQuery, include: Collection[Source], made: Made) -> Recalled:
        return await self._recall.search(agent, query, made) if EVENTS in include else Recalled([])

    async def _matching(
        self, agent: str, query: RecallQuery, strategy: Strategy, include: Collection[Source], made: Made
    ) -> tuple[list[ScoredFact], Waiting]:
        """The facts that match and pass the filter, and how many have no vector yet."""
        wanted = query.filter
        if KNOWLEDGE not in include or not passes_facts(wanted):
            return [], Waiting(0, 0)
        conditions = FactFilter(metadata=wanted.metadata)
        facts, waiting = await self._facts.scan(agent, query.query, made.vector, strategy, conditions)
        return [fact for fact in facts if _within(fact.believed_from, wanted)], waiting


def passes_facts(wanted: Filter) -> bool:
    """Whether a fact can pass at all."""
    return wanted.types is None and wanted.session is None and wanted.role is None


def _within(at: datetime, wanted: Filter) -> bool:
    return (wanted.since is None or at >= wanted.since) and (wanted.until is None or at < wanted.until)


def _ranked(fact: ScoredFact, query: RecallQuery, strategy: Strategy, made: Made, *, timed: bool) -> ScoredFact:
    """The fact with the score that an event of the same likeness has."""
    from agentmemory_engine.ranking import fuse

    semantic = fact.scores.get(SEMANTIC, 0.0) if made.vector is not None else None
    keyword = None if strategy == SEMANTIC else fact.scores.get("keyword", 0.0)
    score = float(fuse(semantic, keyword, 0.0 if timed else None))  # type: ignore[arg-type]
    scores = dict(fact.scores)
    if query.recency is not None:
        age = max(0.0, ((query.now or datetime.now(UTC)) - fact.believed_from).total_seconds())
        scores["recency"] = 0.5 ** (age / query.recency.half_life)
        score = (1 - query.recency.weight) * score + query.recency.weight * scores["recency"]
    return replace(fact, score=max(0.0, min(1.0, score)), scores=scores)


def _order(hit: Hit | FactHit) -> tuple[float, datetime]:
    """Best first; of equals, the newest."""
    return hit.score, hit.event.at if isinstance(hit, Hit) else hit.fact.believed_from


def _text_of(hit: Hit | FactHit) -> str:
    return text_of_event(hit) if isinstance(hit, Hit) else f"{hit.fact.topic} {hit.fact.content}"
