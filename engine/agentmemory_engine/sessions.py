"""Sessions: started, listed, ended and described, in Postgres at once; those that only turns have named, too."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from agentmemory_engine.answers import SessionPage, SessionRecord, StoredEvent
from agentmemory_engine.cursors import format_place, parse_place
from agentmemory_engine.declared import Declared
from agentmemory_engine.errors import InvalidInput, KeyReused, NoSession, ShardClosed, StoreUnavailable
from agentmemory_engine.journal import patiently
from agentmemory_engine.keys import check_agent, digest_agent, digest_key, session_id
from agentmemory_engine.postgres import POISON, Postgres, Session, aware
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import UNFLUSHED, Tails, Unflushed
from agentmemory_engine.working import merge_object

LONGEST_ID = 256
"""Characters, as in a turn."""


class NewSession(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A session to start. Without an `id` one is made."""

    id: Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)] | None = None
    metadata: Annotated[
        dict[str, Raw] | None, Meta(description="to filter by; merged (RFC 7396) into what the session has already")
    ] = None


class SessionChange(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is."""

    ended: Annotated[bool | UnsetType, Meta(description="true ends it, false opens it again")] = UNSET
    metadata: Annotated[dict[str, Raw] | UnsetType | None, Meta(description="a JSON Merge Patch; null removes all")] = (
        UNSET
    )


@dataclass(frozen=True, kw_only=True)
class SessionQuery:
    """A page of an agent's sessions, newest first. `metadata` is a JSON object that a session's metadata contains."""

    ended: bool | None = None
    metadata: bytes | None = None
    limit: int = 100
    cursor: str | None = None


class Place(NamedTuple):
    """Where a page ended."""

    started_at: Annotated[datetime, Meta(tz=True)]
    id: str


class Sessions:
    """The sessions of one memory. With `distill`, facts are to be drawn from one that ends.

    Every call raises InvalidAgentId, InvalidInput for a value that Postgres cannot hold, and StoreUnavailable.
    """

    def __init__(
        self, postgres: Postgres, declared: Declared, tail: Tails, settings: Settings, *, distill: bool = False
    ) -> None:
        self._postgres = postgres
        self._declared = declared
        self._tail = tail
        self._settings = settings
        self._distill = distill

    async def start(self, agent: str, new: NewSession, *, key: str | None = None) -> tuple[SessionRecord, bool]:
        """The session, and whether it is new. Starting it again merges the metadata, and opens nothing that has ended.

        A repetition with the same `key` changes nothing, as long as no other start has come between. Raises KeyReused.
        """
        check_agent(agent)
        digest, body = digest_key(key or uuid4().hex), fingerprint_of(new)
        identity = check_session(new.id or str(session_id(agent, digest)))
        mark = (digest, body) if key else (None, None)
        metadata = merge_object(None, new.metadata or {}) if new.metadata is not None else None
        async with self._transaction(agent) as session:
            if key and (known := await self._row(session, "session_by_key", agent, digest)):
                return repeated(known, body), False
            started = await self._begin(session, agent, identity, metadata, *mark, None, None)
            if started is not None:
                return record_of(started), True
            found = await self._row(session, "lock_session", agent, identity)
            if found is None:
                raise StoreUnavailable("postgres", "the session was erased this moment; start it again.")
            if key and found["start_key"] == digest:
                return repeated(found, body), False
            if new.metadata is None:
                return record_of(found), False
            merged = merge_object(found["metadata"], new.metadata)
            ended = found["ended_at"] is not None
            changed = await self._row(session, "change_session", agent, identity, merged, ended, *mark)
            return record_of(changed), False

    async def change(self, agent: str, identity: str, change: SessionChange) -> SessionRecord:
        """The session after it. What only an unflushed turn has named is a session as well. Raises NoSession."""
        check_agent(agent)
        check_session(identity)
        changed = await self._apply(agent, identity, change)
        if changed is None:
            # From the tail to Postgres is the way that events go: one that was in neither yet is found by now.
            unflushed = await patiently(lambda: self._tail.unflushed(agent))
            pending = _sessions_of(unflushed.events or ()).get(identity)
            if pending is not None:
                await self._keep(agent, pending, unflushed)
            changed = await self._apply(agent, identity, change)
        if changed is None:
            raise no_session(identity)
        return changed

    async def _keep(self, agent: str, pending: SessionRecord, unflushed: Unflushed) -> None:
        """Give a session that only unflushed turns have named its row, unless they were erased since they were read."""
        async with self._transaction(agent, alone=True) as session:
            since = self._postgres.query("erased_since")
            if not await session.fetchval(since, digest_agent(agent), *unflushed.read):
                times = pending.started_at, pending.last_event_at
                await self._begin(session, agent, pending.id, None, None, None, *times)

    async def _begin(self, session: Session, agent: str, identity: str, *columns: Any) -> Any:
        """The row of a new session, also in the place of one that an erasure takes; None where there is one already."""
        row = await self._row(session, "start_session", agent, identity, *columns)
        if row is not None:
            return row
        found = await self._row(session, "lock_session", agent, identity)
        if found is None or not await self._is_erased(session, agent, found):
            return None
        await self._row(session, "drop_session", agent, identity)
        return await self._row(session, "start_session", agent, identity, *columns)

    async def _is_erased(self, session: Session, agent: str, locked: Any) -> bool:
        """Whether an erasure under way takes the row, which is locked: rows of a new life come after its end."""
        return locked["derived"] and await self._row(session, "pending_erasure", digest_agent(agent)) is not None

    async def _apply(self, agent: str, identity: str, change: SessionChange) -> SessionRecord | None:
        async with self._transaction(agent) as session:
            row = await self._row(session, "lock_session", agent, identity)
            if row is None or await self._is_erased(session, agent, row):
                return None
            metadata = row["metadata"]
            if change.metadata is not UNSET:
                metadata = merge_object(metadata, change.metadata)
            ended = row["ended_at"] is not None if change.ended is UNSET else change.ended
            if self._distill and ended and row["ended_at"] is None:
                await self._row(session, "ask_distillation", agent, identity, self._settings.shard_of(agent))
            return record_of(await self._row(session, "change_session", agent, identity, metadata, ended, None, None))

    async def read(self, agent: str, identity: str) -> SessionRecord:
        """One session, its unflushed events included. Raises NoSession."""
        check_agent(agent)
        check_session(identity)
        row = await self._get(agent, identity)
        if row is not None:
            with contextlib.suppress(StoreUnavailable, ShardClosed):
                return _with_tail(record_of(row), (await self._pending(agent)).get(identity))
            return record_of(row)
        pending = (await patiently(lambda: self._pending(agent))).get(identity)
        # What was in neither was on its way.
        row = await self._get(agent, identity)
        if row is not None:
            return _with_tail(record_of(row), pending)
        if pending is None:
            raise no_session(identity)
        return pending

    async def page(self, agent: str, query: SessionQuery) -> SessionPage:
        """A page of sessions. Without Redis it is `degraded`: what only unflushed turns have named is missing.

        A session keeps its place, unless an event dated before its start comes: then it may be met a second time.
        """
        check_agent(agent)
        metadata = None if query.metadata is None else query.metadata.decode()
        asked = (agent, query.ended, metadata)
        after = parse_place(query.cursor, Place, *asked) if query.cursor else None
        degraded: list[str] = []
        try:
            pending = await self._pending(agent)
        except (StoreUnavailable, ShardClosed):
            pending, degraded = {}, [UNFLUSHED]
        unflushed = await self._only_in_tail(agent, pending, query)
        rows = await self._postgres.ask(
            "list_sessions",
            agent,
            *(after or (None, None)),
            query.ended,
            metadata,
            query.limit + 1,
            digest_agent(agent),
        )
        found = {one.id: one for one in unflushed if after is None or place_of(one) < after}
        found |= {row["session_id"]: _with_tail(record_of(row), pending.get(row["session_id"])) for row in rows}
        ordered = sorted(found.values(), key=place_of, reverse=True)
        page = ordered[: query.limit]
        cursor = format_place(place_of(page[-1]), *asked) if len(ordered) > len(page) else None
        return SessionPage(page, cursor, degraded)

    async def _only_in_tail(
        self, agent: str, pending: dict[str, SessionRecord], query: SessionQuery
    ) -> list[SessionRecord]:
        """Those that Postgres does not know. It is asked before the page is read: what it knows is in the page then."""
        if not pending or query.ended or query.metadata is not None:
            return []
        rows = await self._postgres.fetch("known_sessions", agent, list(pending), digest_agent(agent))
        known = {row["session_id"] for row in rows}
        return [one for one in pending.values() if one.id not in known]

    async def _pending(self, agent: str) -> dict[str, SessionRecord]:
        """What the unflushed events say of their sessions. Raises StoreUnavailable, ShardClosed."""
        return _sessions_of((await self._tail.unflushed(agent)).events or ())

    async def _get(self, agent: str, identity: str) -> Any:
        return await self._postgres.fetchrow("get_session", agent, identity, digest_agent(agent))

    async def _row(self, session: Session, query: str, *args: Any) -> Any:
        return await session.fetchrow(self._postgres.query(query), *args)

    @asynccontextmanager
    async def _transaction(self, agent: str, *, alone: bool = False) -> AsyncIterator[Session]:
        try:
            async with self._declared.transaction(agent, alone=alone) as session:
                yield session
        except POISON as error:
            raise InvalidInput(f"A value in the request cannot be stored: {error}.") from None


def check_session(identity: str) -> str:
    """Answer the id as it is. Raises InvalidInput."""
    if not 1 <= len(identity) <= LONGEST_ID or "\x00" in identity:
        raise InvalidInput(f"A session's id is 1 to {LONGEST_ID} characters, none of them NUL.")
    return identity


def fingerprint_of(new: NewSession) -> bytes:
    """8 bytes that tell two requests apart under one idempotency key."""
    return blake2b(msgspec.json.encode(new), digest_size=8).digest()


def repeated(row: Any, fingerprint: bytes) -> SessionRecord:
    """What a repetition of the request that started this session answers. Raises KeyReused."""
    if row["start_fingerprint"] != fingerprint:
        raise KeyReused("This idempotency key was used to start another session; take a new key for a new one.")
    return record_of(row)


def no_session(identity: str) -> NoSession:
    """What is said where there is none."""
    return NoSession(f"There is no session {identity[:64]!r}; start it, or name it in a turn.")


def record_of(row: Any) -> SessionRecord:
    """A session from a row of agent_sessions."""
    return SessionRecord(
        id=row["session_id"],
        started_at=aware(row["started_at"]),
        last_event_at=row["last_event_at"] and aware(row["last_event_at"]),
        ended_at=row["ended_at"],
        metadata=None if row["metadata"] is None else row["metadata"].encode(),
    )


def place_of(session: SessionRecord) -> Place:
    """Where it stands among its agent's sessions."""
    return Place(session.started_at, session.id)


def _sessions_of(events: Iterable[StoredEvent]) -> dict[str, SessionRecord]:
    found: dict[str, SessionRecord] = {}
    for event in events:
        if event.session is not None:
            one = SessionRecord(id=event.session, started_at=event.at, last_event_at=event.at)
            known = found.get(event.session, one)
            found[event.session] = _with_tail(replace(known, started_at=min(known.started_at, event.at)), one)
    return found


def _with_tail(session: SessionRecord, pending: SessionRecord | None) -> SessionRecord:
    """With the last event that is not flushed yet. The start stays, as the order of pages is by it."""
    if pending is None or pending.last_event_at is None:
        return session
    if session.last_event_at is not None and session.last_event_at >= pending.last_event_at:
        return session
    return replace(session, last_event_at=pending.last_event_at)
