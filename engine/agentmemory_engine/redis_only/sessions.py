"""Sessions: those that were started, and those that turns have named."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from msgspec import UNSET, structs

from agentmemory_engine.answers import SessionPage, SessionRecord
from agentmemory_engine.cursors import format_place, parse_place
from agentmemory_engine.jsonb import contains, given_json, json_of
from agentmemory_engine.keys import check_agent, digest_key, session_id
from agentmemory_engine.redis_only.meetings import SessionRow, joined, row_of
from agentmemory_engine.redis_only.records import Amendment, RecordStore
from agentmemory_engine.sessions import (
    NewSession,
    Place,
    SessionChange,
    SessionQuery,
    check_session,
    fingerprint_of,
    no_session,
    place_of,
    record_of,
    repeated,
)
from agentmemory_engine.working import merge_object


class Sessions:
    """The sessions of one memory. Every call raises InvalidAgentId, InvalidInput, ShardClosed and StoreUnavailable."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    async def start(self, agent: str, new: NewSession, *, key: str | None = None) -> tuple[SessionRecord, bool]:
        """The session, and whether it is new. Starting it again merges the metadata, and opens nothing that has ended.

        A repetition with the same `key` changes nothing, as long as no other start has come between. Raises KeyReused,
        JournalFull, WrongEvictionPolicy.
        """
        check_agent(agent)
        digest, body = digest_key(key or uuid4().hex), fingerprint_of(new)
        identity = check_session(new.id or str(session_id(agent, digest)))
        mark = {"start_key": digest, "start_fingerprint": body} if key else {}
        async with self._records.alone(agent) as editing:
            while True:
                records = await editing.read(met=True)
                known = next((name for name, row in records.sessions.items() if key and row.start_key == digest), None)
                rows = joined(records.sessions, records.met)
                if known is not None:
                    return repeated(row_of(known, rows[known]), body), False
                found = rows.get(identity)
                if found is not None and new.metadata is None:
                    return record_of(row_of(identity, found)), False
                metadata = merge_object(None if found is None else found.metadata, new.metadata)
                given_json(metadata)
                row = structs.replace(found or SessionRow(started_at=records.now), metadata=metadata, **mark)
                if await editing.make(records, Amendment(sessions={identity: row})):
                    return record_of(row_of(identity, row)), found is None

    async def change(self, agent: str, identity: str, change: SessionChange) -> SessionRecord:
        """The session after it. Raises NoSession, JournalFull, WrongEvictionPolicy."""
        check_agent(agent)
        check_session(identity)
        async with self._records.alone(agent) as editing:
            while True:
                records = await editing.read(met=True)
                row = joined(records.sessions, records.met).get(identity)
                if row is None:
                    raise no_session(identity)
                if change.metadata is not UNSET:
                    row = structs.replace(row, metadata=merge_object(row.metadata, change.metadata))
                    given_json(row.metadata)
                if change.ended is not UNSET:
                    row = structs.replace(row, ended_at=(row.ended_at or records.now) if change.ended else None)
                if await editing.make(records, Amendment(sessions={identity: row})):
                    return record_of(row_of(identity, row))

    async def read(self, agent: str, identity: str) -> SessionRecord:
        """One session. Raises NoSession."""
        check_agent(agent)
        check_session(identity)
        records = await self._records.read(agent, met=True)
        row = joined(records.sessions, records.met).get(identity)
        if row is None:
            raise no_session(identity)
        return record_of(row_of(identity, row))

    async def page(self, agent: str, query: SessionQuery) -> SessionPage:
        """A page of sessions.

        A session keeps its place, unless an event dated before its start comes: then it may be met a second time.
        """
        check_agent(agent)
        asked = (agent, query.ended, None if query.metadata is None else query.metadata.decode())
        after = parse_place(query.cursor, Place, *asked) if query.cursor else None
        records = await self._records.read(agent, met=True)
        rows = joined(records.sessions, records.met).items()
        found = [record_of(row_of(session, row)) for session, row in rows]
        wanted = given_json(query.metadata)
        found = [one for one in found if _matches(one, query, wanted) and (after is None or place_of(one) < after)]
        found.sort(key=place_of, reverse=True)
        page = found[: query.limit]
        return SessionPage(page, format_place(place_of(page[-1]), *asked) if len(found) > len(page) else None)


def _matches(session: SessionRecord, query: SessionQuery, wanted: Any) -> bool:
    return (query.ended is None or (session.ended_at is not None) == query.ended) and (
        query.metadata is None or contains(json_of(session.metadata), wanted)
    )
