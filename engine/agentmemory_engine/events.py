"""Episodic memory: the timeline over the unflushed tail and Postgres, and the recent messages."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any, Literal

import msgspec

from agentmemory_engine.answers import Page, StoredEvent
from agentmemory_engine.batches import EventRow, moment, raw_or_none, rows_of
from agentmemory_engine.errors import ShardClosed, StoreUnavailable
from agentmemory_engine.journal import ERASED, Journal, JournalEntry
from agentmemory_engine.keys import digest_agent, event_id
from agentmemory_engine.positions import START, Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.timeline_cursors import LAST_INDEX, Cursor, Place, fingerprint, format_cursor, parse_cursor
from agentmemory_engine.turns import MESSAGE, Event

UNFLUSHED = "unflushed"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HELD_EVENTS = 20_000


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


def place_of(event: StoredEvent) -> Place:
    """Where it stands in its agent's timeline."""
    return Place(event.position.entry, event.index)


def event_of_row(shard: int, row: EventRow) -> StoredEvent:
    """An event that is still in the journal."""
    return StoredEvent(
        id=row.id,
        position=Position(shard, row.entry),
        index=row.index,
        type=row.event.type,
        role=row.event.role,
        content=row.event.content,
        payload=raw_or_none(row.event.payload),
        metadata=raw_or_none(row.event.metadata),
        session=row.session,
        at=row.at,
        accepted_at=row.accepted_at,
    )


def event_of_record(shard: int, record: Any) -> StoredEvent:
    """An event from a row of memory_events."""
    return StoredEvent(
        id=record["id"],
        position=Position(shard, Entry(record["opening"], record["sequence"])),
        index=record["index"],
        type=record["type"],
        role=record["role"],
        content=record["content"],
        payload=_bytes(record["payload"]),
        metadata=_bytes(record["metadata"]),
        session=record["session_id"],
        at=record["at"],
        accepted_at=record["accepted_at"],
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def event_of_window(shard: int, agent: str, element: bytes) -> StoredEvent:
    """A message from the recent window: `<entry>:<index> <accepted> <key> <session>`, a newline, the event."""
    header, _, body = element.partition(b"\n")
    place, accepted, key, session = header.split(b" ", 3)
    entry, _, index = place.partition(b":")
    event = msgspec.json.decode(body, type=Event)
    accepted_at = moment(int(accepted))
    row = EventRow(
        agent=agent,
        id=event_id(agent, bytes.fromhex(key.decode()), int(index)),
        entry=Entry.parse(entry),
        index=int(index),
        at=event.at or accepted_at,
        accepted_at=accepted_at,
        fingerprint=0,
        session=msgspec.json.decode(session),
        event=event,
    )
    return event_of_row(shard, row)


def merge_pages(
    tail: Iterable[StoredEvent], stored: Iterable[StoredEvent], *, limit: int, descending: bool
) -> list[StoredEvent]:
    """Both tiers in order, each event once: one on its way between them stands in both."""
    merged = {event.id: event for event in tail} | {event.id: event for event in stored}
    return sorted(merged.values(), key=lambda event: event.order, reverse=descending)[:limit]


@dataclass(frozen=True)
class Unflushed:
    """What is acknowledged of an agent and not yet in Postgres, in order; None where it cannot be asked.

    While an erasure is under way, `erased` is its entry: what Postgres still has at or before it does not count any
    more. `read` is how far the journal was read.
    """

    events: list[StoredEvent] | None
    erased: Entry | None = None
    read: Entry = START

    @property
    def pending(self) -> tuple[list[StoredEvent], list[str]]:
        """The events, and what is degraded where they cannot be asked for."""
        return ([], [UNFLUSHED]) if self.events is None else (self.events, [])

    def begin(self, after: Place | None, *, descending: bool) -> Place | None:
        """Where a page that begins after this place begins: oldest first, past what is erased."""
        if self.erased is None or descending:
            return after
        last = Place(self.erased, LAST_INDEX)
        return last if after is None else max(after, last)

    def hides(self, entry: Entry) -> bool:
        """Whether what Postgres has at this entry is erased."""
        return self.erased is not None and entry <= self.erased


@dataclass
class _Followed:
    """How far one shard's stream was read, and what it holds of the agents that were asked for."""

    opening: int = -1
    first: Entry | None = None
    following: Entry = START
    agents: OrderedDict[str, list[StoredEvent]] = field(default_factory=OrderedDict)
    erased: dict[str, Entry] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def restart(self, opening: int) -> None:
        self.opening, self.first, self.following = opening, None, START
        self.agents.clear()
        self.erased.clear()

    def take(self, shard: int, entries: list[JournalEntry]) -> None:
        for entry in entries:
            followed = self.agents.get(entry.agent)
            if followed is not None and entry.change == ERASED:
                followed.clear()
                self.erased[entry.agent] = entry.entry
            elif followed is not None:
                followed += (event_of_row(shard, row) for row in rows_of(entry))
            self.following = entry.entry.next()

    def drop_trimmed(self, first: Entry | None) -> None:
        if first == self.first:
            return
        self.first = first
        for agent, events in self.agents.items():
            self.agents[agent] = [event for event in events if first is not None and event.position.entry >= first]
        self.erased = {agent: entry for agent, entry in self.erased.items() if first is not None and entry >= first}

    def forget_oldest(self) -> None:
        """Let go of the agents that were not asked for the longest, where much is held; the last one stays."""
        while len(self.agents) > 1 and sum(map(len, self.agents.values())) > _HELD_EVENTS:
            agent, _ = self.agents.popitem(last=False)
            self.erased.pop(agent, None)


class Tail:
    """The events that are acknowledged and not yet in Postgres. Asking again costs what is new since."""

    def __init__(self, journal: Journal, settings: Settings) -> None:
        self._journal = journal
        self._settings = settings
        self._shards: dict[int, _Followed] = {}

    async def pending(self, agent: str) -> list[StoredEvent]:
        """The agent's pending events, in order. Raises ShardClosed or StoreUnavailable."""
        return (await self.unflushed(agent)).events or []

    async def unflushed(self, agent: str) -> Unflushed:
        """The agent's pending events, and its last pending erasure. Raises ShardClosed or StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        followed = self._shards.setdefault(shard, _Followed())
        async with followed.lock:
            while True:
                await self._catch_up(shard, followed)
                if agent in followed.agents or await self._follow(shard, followed, agent):
                    break
            followed.agents.move_to_end(agent)
            followed.forget_oldest()
            read = Entry(followed.following.opening, max(0, followed.following.sequence - 1))
            return Unflushed(list(followed.agents[agent]), followed.erased.get(agent), read)

    async def _catch_up(self, shard: int, followed: _Followed) -> None:
        """Read what is new."""
        while True:
            page = await self._journal.tail(shard, start=followed.following)
            if page.opening != followed.opening:
                followed.restart(page.opening)
                page = await self._journal.tail(shard, start=START)
                if page.opening != followed.opening:
                    continue
            followed.take(shard, page.entries)
            if not page.more:
                followed.drop_trimmed(page.first)
                return

    async def _follow(self, shard: int, followed: _Followed, agent: str) -> bool:
        """Read what an agent that was not followed yet has before that. False when another opening has begun."""
        alone = _Followed(followed.opening, agents=OrderedDict({agent: []}))
        more = followed.first is not None
        while more and alone.following < followed.following:
            page = await self._journal.tail(shard, start=alone.following)
            if page.opening != followed.opening:
                return False
            alone.take(shard, [entry for entry in page.entries if entry.entry < followed.following])
            more = page.more and page.entries[-1].entry < followed.following
        followed.agents[agent] = alone.agents[agent]
        followed.erased |= alone.erased
        return True


async def read_unflushed(tail: Tail, postgres: Postgres, agent: str) -> Unflushed:
    """As Tail.unflushed; without Redis no events, and an erasure that is under way from its mark in Postgres.

    Raises StoreUnavailable when neither can be asked.
    """
    try:
        return await tail.unflushed(agent)
    except (StoreUnavailable, ShardClosed):
        row = await postgres.fetchrow("pending_erasure", digest_agent(agent))
        return Unflushed(None, None if row is None else Entry(row["opening"], row["sequence"]))


class Events:
    """Reads episodic memory."""

    def __init__(self, postgres: Postgres, journal: Journal, tail: Tail, settings: Settings) -> None:
        self._postgres = postgres
        self._journal = journal
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
            elements = await self._journal.read_key(
                shard, "LRANGE", self._settings.keys.window(shard, agent), -limit, -1
            )
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
