"""Recall over all that is kept: every event of the agent is scored, whatever the strategy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from agentmemory_engine.answers import Hit, Recalled, StoredEvent
from agentmemory_engine.events import Filter
from agentmemory_engine.indexes import ALONE, Held, HeldIndexes, indexed_event, place_in_order
from agentmemory_engine.recall import ALONE as SCORED_ALONE
from agentmemory_engine.recall import POOL, RecallQuery, diverse, text_of_event
from agentmemory_engine.redis_only.matrices import Matrices
from agentmemory_engine.redis_only.vectors import text_of
from agentmemory_engine.semantic import HYBRID, SEMANTIC, Made, QueryVectors
from agentmemory_engine.tail import Tails
from agentmemory_engine.threads import in_thread

if TYPE_CHECKING:
    from agentmemory_engine.candidates import Distances
    from agentmemory_engine.postings import Postings


class LogIndexes(HeldIndexes):
    """The keyword indexes of what the logs hold, extended by what is new there, and built anew when some of it went."""

    def __init__(self, tail: Tails) -> None:
        super().__init__()
        self._tail = tail

    @asynccontextmanager
    async def fresh(self, agent: str) -> AsyncIterator[tuple[Postings, list[StoredEvent]]]:
        """The agent's events and their index, which nobody else has inside the block. Raises StoreUnavailable."""
        from agentmemory_engine.postings import Postings

        async with self._alone(agent) as held:
            try:
                events = (await self._tail.unflushed(agent)).events or []
                if not _begins_with(events, held):
                    held.postings = Postings()
                new = events[len(held.postings) :]
                if len(new) > ALONE:
                    await in_thread(partial(_add, held.postings, new))
                else:
                    _add(held.postings, new)
                if events:
                    held.place = place_in_order(events[-1])
                self._make_room()
                yield held.postings, events
            except BaseException:
                # It may be in the middle of an event.
                self._forget(agent, held)
                raise


def _add(postings: Postings, events: Sequence[StoredEvent]) -> None:
    postings.add(map(indexed_event, events))


def _begins_with(events: Sequence[StoredEvent], held: Held) -> bool:
    """Whether the events that are indexed are the first of these: they go at the beginning only, or all from one on."""
    count = len(held.postings)
    return not count or (count <= len(events) and place_in_order(events[count - 1]) == held.place)


class LogRecall:
    """Exact whatever the strategy."""

    def __init__(self, queries: QueryVectors, indexes: LogIndexes, matrices: Matrices) -> None:
        self._queries = queries
        self._indexes = indexes
        self._matrices = matrices

    async def search(self, agent: str, query: RecallQuery, made: Made | None = None) -> Recalled:
        """The agent's `k` best matches, never fewer while more of its events match and pass the filter.

        `not_yet_searchable` counts events that have no vector yet: keywords find them at once. `degraded` names
        `semantic` where hybrid recall has to do without. `made` is what became of the query already. Raises
        InvalidInput, RecallUnavailable, StoreUnavailable.
        """
        strategy = query.checked()
        query.filter.check()
        if made is None:
            made = Made(await self._queries.vector_for(strategy, query.query, query.vector))
        vector = made.vector
        degraded = [SEMANTIC] if strategy == HYBRID and vector is None and self._queries.enabled else []
        async with self._indexes.fresh(agent) as (index, events):
            by_id = {event.id: event for event in events}
            distances: Distances | None = None
            waiting = 0
            if self._queries.enabled:
                places = {event.id: event.order for event in events}
                matrix, waiting = await self._matrices.of(agent, places, lambda one: text_of(by_id[one]))
                distances = None if vector is None else matrix.distances(vector)
            # What runs the numbers is loaded when somebody asks: many a sidecar is never asked.
            from agentmemory_engine.candidates import rank

            work = partial(
                rank, index, query, strategy, distances, with_metadata=_with_metadata(query.filter, events),
                now=query.now or datetime.now(UTC), count=query.k * (POOL if query.diversity else 1),
            )  # fmt: skip
            candidates = await in_thread(work) if len(index) > SCORED_ALONE else work()
        hits = [Hit(by_id[one.id], one.score, one.scores) for one in candidates]
        if query.diversity:
            hits = diverse(hits, query, text_of_event)
        return Recalled(hits[: query.k], degraded=degraded, not_yet_searchable=waiting)


def _with_metadata(wanted: Filter, events: Sequence[StoredEvent]) -> bytes | None:
    """The ids of all events whose metadata passes; None where all do."""
    if wanted.metadata is None:
        return None
    only = Filter(metadata=wanted.metadata)
    return b"".join(event.id.bytes for event in events if only.matches(event))
