"""Recall: the events of one agent that answer a query best, by meaning, by keyword or, as a rule, by both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from agentmemory_engine.answers import FactHit, Hit, Recalled, StoredEvent
from agentmemory_engine.embedding import Vector
from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Filter
from agentmemory_engine.indexes import Indexes
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.semantic import BACK_FILL, HYBRID, SEMANTIC, Made, Semantic, Strategy, Waiting
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_record
from agentmemory_engine.tail import UNFLUSHED, Tails, Unflushed, read_unflushed
from agentmemory_engine.terms import terms_of
from agentmemory_engine.threads import in_thread

if TYPE_CHECKING:
    from agentmemory_engine.candidates import Candidate, Distances

H = TypeVar("H", bound=Hit | FactHit)
MAX_HITS = 100
POOL = 4
"""So many times `k` events are looked at where hits are to differ."""
_TRIES = 4
"""Looks while events go from under them; then those that are left are answered."""
ALONE = 20_000
"""Events that are scored in the event loop; more go to a thread."""


@dataclass(frozen=True, kw_only=True)
class Recency:
    """How much newer events are preferred: `weight` from 0 to 1, halved every `half_life` seconds of age."""

    half_life: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class RecallQuery:
    """What to look for: a text, or a vector made by the same model. `min_score` is from 0 to 1.

    `strategy` None means hybrid for a text, and semantic for a vector. `diversity`, from 0 to 1, is how much what
    repeats an earlier hit is put back. `named_times` says whether a time in the query counts (in `zone`, seen from
    `now`); it does for hybrid recall only.
    """

    query: str | None = None
    vector: list[float] | None = None
    k: int = 5
    strategy: Strategy | None = None
    filter: Filter = field(default_factory=Filter)
    min_score: float = 0.0
    recency: Recency | None = None
    diversity: float = 0.0
    named_times: bool = True
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    now: datetime | None = None

    def checked(self) -> Strategy:
        """The strategy. Raises InvalidInput for what does not go together."""
        if (self.query is None) == (self.vector is None):
            raise InvalidInput("Recall takes either `query` or `vector`.")
        if self.query is not None and not self.query.strip():
            raise InvalidInput("`query` is empty; say what to look for.")
        if self.vector is not None and self.strategy not in (None, SEMANTIC):
            raise InvalidInput(f"`strategy` {self.strategy} needs `query`: there are no keywords in a `vector`.")
        return self.strategy or (HYBRID if self.vector is None else SEMANTIC)

    @property
    def is_plain(self) -> bool:
        """Whether similarity alone ranks."""
        return self.recency is None and not self.diversity


class Recall:
    """Scores all of the agent's events, but where meaning alone counts and an approximate index was asked for."""

    def __init__(
        self, postgres: Postgres, semantic: Semantic, indexes: Indexes, tail: Tails, settings: Settings
    ) -> None:
        self._postgres = postgres
        self._semantic = semantic
        self._indexes = indexes
        self._tail = tail
        self._settings = settings

    async def search(self, agent: str, query: RecallQuery, made: Made | None = None) -> Recalled:
        """The agent's `k` best matches, never fewer while more of its events match and pass the filter.

        `not_yet_searchable` counts acknowledged events that have no vector yet: keywords find them at once. `degraded`
        names what could not be asked: `unflushed` (Redis), `semantic` where hybrid recall has to do without, and
        `back_fill` where some of the agent's events are older than the model and have no vector of it yet. `made` is
        what became of the query already. Raises InvalidInput, RecallUnavailable, StoreUnavailable.
        """
        strategy = query.checked()
        if strategy == SEMANTIC and query.is_plain:
            return await self._nearest(agent, query, made)
        return await self._ranked(agent, query, strategy, made)

    async def _nearest(self, agent: str, query: RecallQuery, made: Made | None) -> Recalled:
        vector, (unflushed, waiting) = await asyncio.gather(self._vector(query, SEMANTIC, made), self._not_yet(agent))
        assert vector is not None
        hits: list[Hit] = []
        approximate = False
        if unflushed.erased is None:
            hits, approximate = await self._semantic.nearest(agent, vector, query.k, query.filter, query.min_score)
        degraded = [UNFLUSHED] if unflushed.events is None else []
        if waiting.old:
            degraded.append(BACK_FILL)
        not_yet = waiting.count + len(unflushed.events or [])
        return Recalled(hits, approximate, degraded, not_yet)

    async def _ranked(self, agent: str, query: RecallQuery, strategy: Strategy, made: Made | None) -> Recalled:
        (unflushed, waiting), vector = await asyncio.gather(self._not_yet(agent), self._vector(query, strategy, made))
        distances = None if vector is None else await self._semantic.distances(agent, vector)
        degraded = [UNFLUSHED] if unflushed.events is None else []
        if strategy == HYBRID and vector is None and self._semantic.enabled:
            degraded.append(SEMANTIC)
        if vector is not None and waiting.old:
            degraded.append(BACK_FILL)
        pending, erased = unflushed.events or [], unflushed.erased is not None
        candidates, events = await self._look(agent, query, strategy, distances, pending, erased=erased)
        hits = [Hit(events[one.id], one.score, one.scores) for one in candidates if one.id in events]
        if query.diversity:
            hits = diverse(hits, query, text_of_event)
        return Recalled(hits[: query.k], degraded=degraded, not_yet_searchable=waiting.count + len(pending))

    async def _look(
        self,
        agent: str,
        query: RecallQuery,
        strategy: Strategy,
        distances: Distances | None,
        pending: list[StoredEvent],
        *,
        erased: bool,
    ) -> tuple[list[Candidate], dict[UUID, StoredEvent]]:
        """The ranking, and its events: what went between the two is looked past, so that no answer is short of it.

        `erased`: an erasure is under way, and what Postgres holds is from before it. It is in no index then, and so no
        candidate, whatever its distance or its metadata.
        """
        tries = _TRIES
        while True:
            candidates = await self._candidates(agent, query, strategy, distances, pending, erased=erased)
            events = await self._read(agent, candidates, pending)
            tries -= 1
            if len(events) == len({one.id for one in candidates}) or not tries:
                return candidates, events
            self._indexes.forget(agent)

    async def _candidates(
        self,
        agent: str,
        query: RecallQuery,
        strategy: Strategy,
        distances: Distances | None,
        pending: list[StoredEvent],
        *,
        erased: bool,
    ) -> list[Candidate]:
        # What runs the numbers is loaded when somebody asks: many a sidecar is never asked.
        from agentmemory_engine.candidates import rank

        async with self._indexes.of_tail(pending) if erased else self._indexes.fresh(agent, pending) as index:
            with_metadata = await self._with_metadata(agent, query.filter, pending)
            work = partial(
                rank, index, query, strategy, distances, with_metadata=with_metadata,
                now=query.now or datetime.now(UTC), count=query.k * (POOL if query.diversity else 1),
            )  # fmt: skip
            return await in_thread(work) if len(index) > ALONE else work()

    async def _with_metadata(self, agent: str, wanted: Filter, pending: list[StoredEvent]) -> bytes | None:
        """The ids of all events whose metadata passes; None where all do."""
        if wanted.metadata is None:
            return None
        rows = await self._postgres.ask("ids_with_metadata", agent, wanted.metadata.decode())
        only = Filter(metadata=wanted.metadata)
        return (rows[0]["ids"] or b"") + b"".join(event.id.bytes for event in pending if only.matches(event))

    async def _vector(self, query: RecallQuery, strategy: Strategy, made: Made | None) -> Vector | None:
        if made is not None:
            return made.vector
        return await self._semantic.vector_for(strategy, query.query, query.vector)

    async def _read(
        self, agent: str, candidates: Sequence[Candidate], pending: Iterable[StoredEvent]
    ) -> dict[UUID, StoredEvent]:
        wanted = {one.id for one in candidates}
        found = {event.id: event for event in pending if event.id in wanted}
        rest = list(wanted - set(found))
        shard = self._settings.shard_of(agent)
        rows = await self._postgres.fetch("events_by_id", agent, rest) if rest else []
        return found | {row["id"]: event_of_record(shard, row) for row in rows}

    async def _not_yet(self, agent: str) -> tuple[Unflushed, Waiting]:
        """What is in the journal, and how many events wait for a vector.

        Asked in the order in which events move, and before the search, so that one on its way is counted or found.
        """
        unflushed = await read_unflushed(self._tail, self._postgres, agent)
        if unflushed.erased is not None:
            # What Postgres has of the agent is from before: it is not waited for any more.
            return unflushed, Waiting(0, 0)
        waiting = await self._postgres.fetchrow("not_yet_embedded", agent, await self._semantic.model())
        assert waiting is not None
        return unflushed, Waiting(waiting["events"], waiting["old"])


def text_of_event(hit: Hit) -> str:
    """What two events are held against each other by."""
    return searchable_text(hit.event.content, hit.event.payload)


def diverse(hits: Sequence[H], query: RecallQuery, text_of: Callable[[H], str]) -> list[H]:
    """The best of these hits, with what repeats an earlier one put back."""
    from agentmemory_engine.ranking import diversify

    def terms(place: int) -> list[str]:
        return terms_of(text_of(hits[place]))

    order = diversify(range(len(hits)), lambda place: hits[place].score, terms, share=query.diversity, count=query.k)
    return [hits[place] for place in order]
