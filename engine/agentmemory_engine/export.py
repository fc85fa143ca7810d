"""Export: all that memory holds of one agent, in order, a part at a time. Import: what no turn brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from agentmemory_engine.answers import Document, Page, StoredEvent
from agentmemory_engine.declared import Declared
from agentmemory_engine.errors import DocumentExpired, InvalidInput, NoDocument, StoreUnavailable
from agentmemory_engine.events import Events, TimelineQuery
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.parts import Episodic, Waiting, Working
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import POISON, Postgres, aware
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_record
from agentmemory_engine.tail import Tails, Unflushed
from agentmemory_engine.working import WorkingMemory

_FETCHED = 50
"""Rows that are fetched at once: a row can be large."""
_SMALLEST_PAGE = 16
_LARGEST_PAGE = 64
_BYTES_A_PAGE = 1 << 20
_TRIES, _PAUSE = 100, 0.05
"""Looks, and the seconds between them, for a position that is not before the document's."""


@dataclass(frozen=True, kw_only=True)
class SessionLine:
    """A session; `metadata` is JSON. The key of the request that started it stays behind: a copy is another session."""

    session: str
    started_at: datetime
    last_event_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: bytes | None = None


@dataclass(frozen=True)
class Fact:
    """A row of knowledge, as a JSON object without its agent."""

    row: bytes


@dataclass(frozen=True, kw_only=True)
class LetterLine:
    """A dead letter; `raw` is the event's JSON as it was journalled, or an array of them; or a document's bytes."""

    kind: Literal["event", "document"]
    id: UUID
    position: Position
    index: int
    session: str | None
    accepted_at: datetime
    reason: str
    sqlstate: str | None
    raw: bytes
    dead_at: datetime


@dataclass(frozen=True)
class Added:
    """How many rows an import added or completed."""

    sessions: int
    knowledge: int


Line = SessionLine | StoredEvent | Fact | LetterLine


@dataclass(frozen=True)
class Export:
    """The head of an export: what was accepted up to `position` is in it, and no event after that.

    `document` is None where there is none; `expired` says that it is the last snapshot of one whose lease ended.
    """

    agent: str
    position: Position
    document: Document | None
    expired: bool
    unflushed: Unflushed


class Exporter:
    """Reads everything of an agent, both tiers merged, without holding much of it at once."""

    def __init__(
        self, postgres: Postgres, declared: Declared, tail: Tails, events: Events, working: WorkingMemory,
        barrier: Waiting, settings: Settings,
    ) -> None:  # fmt: skip
        self._postgres = postgres
        self._declared = declared
        self._tail = tail
        self._events = events
        self._working = working
        self._barrier = barrier
        self._settings = settings

    async def begin(self, agent: str) -> Export:
        """Fix where the export ends, with the document as it was there. Raises ShardClosed, StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        tries = _TRIES
        while True:
            unflushed = await self._tail.unflushed(agent)
            position = Position(shard, max(unflushed.read, await self._barrier.durable(agent)))
            document, expired = await document_of(self._working, agent)
            if document is None or document.version <= position:
                return Export(agent, position, document, expired, unflushed)
            tries -= 1
            if not tries:
                # Redis went back behind a document that was snapshotted: nothing will ever come up to it.
                return Export(agent, document.version, document, expired, unflushed)
            await asyncio.sleep(_PAUSE)

    async def lines(self, export: Export) -> AsyncGenerator[Line, None]:
        """Sessions, events in order, knowledge, dead letters.

        An event that becomes a dead letter meanwhile, or the reverse, is in it once. Raises ShardClosed,
        StoreUnavailable in the middle.
        """
        async for session in self._sessions(export):
            yield session
        letters = {row["id"] for row in await self._postgres.fetch("dead_letter_ids", export.agent)}
        moving = letters | {event.id for event in export.unflushed.events or ()}
        seen: set[UUID] = set()
        async for event in events_of(self._events, export):
            if event.id in moving:
                seen.add(event.id)
            yield event
        async with aclosing(self._rows("export_knowledge", export.agent)) as rows:
            async for row in rows:
                yield Fact(row["fact"].encode())
        async with aclosing(self._rows("export_dead_letters", export.agent)) as rows:
            async for row in rows:
                letter = _letter(row)
                # What was set aside stands at a place of its own, and is no event that could come twice.
                belongs = letter.kind == "document" or letter.position <= export.position
                if letter.id not in seen and belongs and not self._hidden(export, letter):
                    yield letter
                seen.add(letter.id)
        found = await self._postgres.fetch("events_by_id", export.agent, list(letters - seen))
        replayed = [event_of_record(export.position.shard, row) for row in found]
        for event in sorted(replayed, key=lambda event: event.order):
            yield event

    @staticmethod
    def _hidden(export: Export, letter: LetterLine) -> bool:
        return export.unflushed.hides(letter.position.entry)

    async def _sessions(self, export: Export) -> AsyncGenerator[SessionLine, None]:
        """Those in Postgres, and those that only pending events name."""
        pending = _sessions_of(export.unflushed.events or ())
        erased = export.unflushed.erased is not None
        async with aclosing(self._rows("export_sessions", export.agent, erased)) as rows:
            async for row in rows:
                yield _merged(_session(row), pending.pop(row["session_id"], None))
        for session in sorted(pending):
            yield pending[session]

    async def _rows(self, name: str, *args: Any) -> AsyncGenerator[Any, None]:
        """The rows of one statement as they are at its beginning, a few at a time."""
        async with self._postgres.transaction() as session:
            async for row in session.cursor(self._postgres.query(name), *args, prefetch=_FETCHED):
                yield row

    async def take(self, agent: str, sessions: Sequence[SessionLine], facts: Sequence[Fact]) -> Added:
        """Store sessions and knowledge of an export for an agent, all or nothing; what is there already stays as it is.

        Raises InvalidInput for a row that Postgres refuses, StoreUnavailable.
        """
        query, shard = self._postgres.query, self._settings.shard_of(agent)
        columns = [
            [one.session for one in sessions], [one.started_at for one in sessions],
            [one.last_event_at for one in sessions], [one.ended_at for one in sessions],
            [None if one.metadata is None else one.metadata.decode() for one in sessions],
        ]  # fmt: skip
        rows = [fact.row.decode() for fact in facts]
        try:
            async with self._declared.transaction(agent, alone=True) as session:
                await session.execute(query("drop_erased_sessions"), agent, digest_agent(agent))
                added = await session.fetchval(query("import_sessions"), agent, *columns)
                known = await session.fetchval(query("import_knowledge"), agent, rows, shard)
        except POISON as error:
            raise InvalidInput(
                f"Postgres refuses a line of the import, and nothing of it was stored: {error}."
            ) from error
        return Added(added, known)


async def document_of(working: Working, agent: str) -> tuple[Document | None, bool]:
    """The document, and whether it is the last snapshot of one whose lease ended."""
    try:
        return await working.read(agent), False
    except NoDocument:
        return None, False
    except DocumentExpired:
        return await working.last_snapshot(agent), True


async def events_of(events: Episodic, export: Export) -> AsyncGenerator[StoredEvent, None]:
    """The agent's events up to where the export ends, in order, a page at a time.

    Raises StoreUnavailable where some cannot be read.
    """
    limit, cursor = _SMALLEST_PAGE, None
    while True:
        page = await events.timeline(export.agent, TimelineQuery(limit=limit, cursor=cursor))
        if page.degraded:
            raise StoreUnavailable("redis", "it does not answer, and an export without what it holds is not whole.")
        for event in page.events:
            if event.position > export.position:
                return
            yield event
        cursor = page.cursor
        if cursor is None:
            return
        limit = _next_limit(limit, page)


def _next_limit(limit: int, page: Page) -> int:
    """How many events to ask for next, so that a page is about as large as it may be."""
    size = sum(len(event.payload or b"") + len((event.content or "").encode()) for event in page.events)
    if size > _BYTES_A_PAGE:
        return max(_SMALLEST_PAGE, limit // 2)
    return min(_LARGEST_PAGE, limit * 2) if size < _BYTES_A_PAGE // 2 else limit


def _sessions_of(events: Sequence[StoredEvent]) -> dict[str, SessionLine]:
    found: dict[str, SessionLine] = {}
    for event in events:
        if event.session is not None:
            line = SessionLine(session=event.session, started_at=event.at, last_event_at=event.at)
            found[event.session] = _merged(line, found.get(event.session))
    return found


def _merged(line: SessionLine, other: SessionLine | None) -> SessionLine:
    if other is None:
        return line
    return replace(
        line,
        started_at=min(line.started_at, other.started_at),
        last_event_at=max(filter(None, (line.last_event_at, other.last_event_at)), default=None),
    )


def _session(row: Any) -> SessionLine:
    return SessionLine(
        session=row["session_id"],
        started_at=aware(row["started_at"]),
        last_event_at=row["last_event_at"] and aware(row["last_event_at"]),
        ended_at=row["ended_at"],
        metadata=None if row["metadata"] is None else row["metadata"].encode(),
    )


def _letter(row: Any) -> LetterLine:
    return LetterLine(
        kind=row["kind"],
        id=row["id"],
        position=Position(row["shard"], Entry(row["opening"], row["sequence"])),
        index=row["index"],
        session=row["session_id"],
        accepted_at=row["accepted_at"],
        reason=row["reason"],
        sqlstate=row["sqlstate"],
        raw=row["raw"],
        dead_at=row["dead_at"],
    )
