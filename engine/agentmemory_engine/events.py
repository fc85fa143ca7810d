"""Episodic memory: the timeline over the unflushed tail and Postgres, and the recent messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any, Literal

from agentmemory_engine.answers import Page, StoredEvent
from agentmemory_engine.errors import ShardClosed, StoreUnavailable
from agentmemory_engine.intake import Intake
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_record, event_of_window, place_of
from agentmemory_engine.tail import Tails, Unflushed, read_unflushed
from agentmemory_engine.timeline_cursors import Cursor, Place, fingerprint, format_cursor, parse_cursor
from agentmemory_engine.turns import MESSAGE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events. `metadata` is a JSON object that an event's metadata contains; `until` is exclusive."""

    types: list[str] | None = None
    session: str | None = None
    role: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    metadata: bytes | None = None

    def parameters(self) -> tuple[Any, ...]:
        """As the statements take them: since, until, types, session, role, metadata."""
        metadata = None if self.metadata is None else self.metadata.decode()
        return self.since, self.until, self.types, self.session, self.role, metadata

    def matches(self, event: StoredEvent) -> bool:
        """Whether the event passes, as the same conditions in SQL would have it."""
        return (
            (self.types is None or event.type in self.types)
            and (self.session is None or event.session == self.session)
            and (self.role is None or event.role == self.role)
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
            and (self.metadata is None or contains(_json(event.metadata), self._wanted))
        )

    @cached_property
    def _wanted(self) -> Any:
        return _json(self.metadata)


def _json(text: bytes | None) -> Any:
    """A JSON value with exact numbers, as jsonb has them."""
    return None if text is None else json.loads(text, parse_float=_number, parse_int=_number)


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # An exponent that jsonb refuses as well: equal to nothing.
        return Decimal("NaN")


def contains(value: Any, wanted: Any) -> bool:
    """What `@>` means for jsonb objects: by key, arrays by element in any order, numbers by value."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(key in value and contains(value[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(one, other) for one in value) for other in wanted)
    return type(value) is type(wanted) and bool(value == wanted)


@dataclass(frozen=True, kw_only=True)
class TimelineQuery:
    """A page of a timeline, oldest or newest first. `cursor` is from the page before, of the same query but for the
    limit."""

    filter: Filter = field(default_factory=Filter)
    order: Literal["asc", "desc"] = "asc"
    limit: int = 100
    cursor: str | None = None

    @property
    def descending(self) -> bool:
        return self.order == "desc"

    def fingerprint(self, agents: Sequence[str]) -> str:
        """What a cursor of this query of these agents carries."""
        since, until, types, *others = self.filter.parameters()
        span = [at and (at - _EPOCH) // timedelta(microseconds=1) for at in (since, until)]
        return fingerprint(agents, self.order, [*span, types and sorted(types), *others])

    def start(self, agents: Sequence[str]) -> Cursor | None:
        """Where the page before ended. Raises InvalidInput for a cursor that is none, or of another query."""
        if self.cursor is None:
            return None
        return parse_cursor(self.cursor, self.fingerprint(agents), agents=len(agents))


def merge_pages(
    tail: Iterable[StoredEvent], stored: Iterable[StoredEvent], *, limit: int, descending: bool
) -> list[StoredEvent]:
    """Both tiers in order, each event once: one on its way between them stands in both."""
    merged = {event.id: event for event in tail} | {event.id: event for event in stored}
    return sorted(merged.values(), key=lambda event: event.order, reverse=descending)[:limit]


class Events:
    """Reads episodic memory."""

    def __init__(self, postgres: Postgres, intake: Intake, tail: Tails, settings: Settings) -> None:
        self._postgres = postgres
        self._intake = intake
        self._tail = tail
        self._settings = settings

    async def timeline(self, agent: str, query: TimelineQuery) -> Page:
        """A page of what the agent did. First the tail, then Postgres, so that nothing on its way is missed.

        Without Redis the page is `degraded`: what is not flushed is missing. Raises InvalidInput, StoreUnavailable.
        """
        start = query.start([agent])
        unflushed = await self.unflushed(agent)
        tail, degraded = unflushed.pending
        after = unflushed.begin(start[0] if start else None, descending=query.descending)
        place = (*after.entry, after.number) if after else (None, None, None)
        conditions = query.filter
        statement = "timeline_backwards" if query.descending else "timeline"
        records = await self._postgres.ask(statement, agent, *place, *conditions.parameters(), query.limit + 1)
        shard = self._settings.shard_of(agent)
        stored = [event_of_record(shard, record) for record in records]
        stored = [event for event in stored if not unflushed.hides(event.position.entry)]
        wanted = select_events(tail, conditions, after, descending=query.descending)
        events = merge_pages(wanted, stored, limit=query.limit + 1, descending=query.descending)
        more = len(events) > query.limit
        events = events[: query.limit]
        return Page(events, self._cursor(agent, query, events[-1]) if more else None, degraded)

    async def unflushed(self, agent: str) -> Unflushed:
        """What of the agent is in the journal. Raises StoreUnavailable when neither store can be asked."""
        return await read_unflushed(self._tail, self._postgres, agent)

    def _cursor(self, agent: str, query: TimelineQuery, last: StoredEvent) -> str:
        return format_cursor([place_of(last)], query.fingerprint([agent]))

    async def recent(self, agent: str, limit: int) -> Page:
        """The last messages, oldest first: from the window in Redis, or where that holds fewer, from the timeline.

        Raises StoreUnavailable when neither can be asked; `degraded` says when only a part could.
        """
        shard = self._settings.shard_of(agent)
        try:
            elements = await self._intake.window(agent, limit)
            # A turn that was sent again after its key was forgotten stands there twice.
            found = [event_of_window(shard, agent, element) for element in elements]
            window = list({event.id: event for event in reversed(found)}.values())[::-1]
        except (StoreUnavailable, ShardClosed):
            window = []
        if len(window) >= limit:
            return Page(window, None)
        query = TimelineQuery(filter=Filter(types=[MESSAGE]), order="desc", limit=limit)
        try:
            page = await self.timeline(agent, query)
        except StoreUnavailable:
            if not window:
                raise
            return Page(window, None, ["older"])
        return Page(page.events[::-1], None, page.degraded)


def select_events(
    tail: Iterable[StoredEvent], conditions: Filter, after: Place | None, *, descending: bool
) -> list[StoredEvent]:
    """Of the pending events of an agent those that pass, and that come after a place."""
    return [event for event in tail if conditions.matches(event) and _is_past(event, after, descending=descending)]


def _is_past(event: StoredEvent, place: Place | None, *, descending: bool) -> bool:
    if place is None:
        return True
    return place_of(event) < place if descending else place_of(event) > place
