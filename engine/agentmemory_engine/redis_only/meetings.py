"""Sessions as records, and when each was met in turns: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from agentmemory_engine.redis_only.log import parse_time

_PREFIX = b"s:"


class Meeting(NamedTuple):
    """When the first and the last event of a session happened."""

    first: datetime
    last: datetime


class SessionRow(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A session that a request has started or changed, with the columns of agent_sessions."""

    started_at: datetime
    last_event_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: str | None = None
    start_key: bytes | None = None
    start_fingerprint: bytes | None = None

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes) -> SessionRow:
        return msgspec.json.decode(value, type=cls)


def meetings_of(flat: Sequence[bytes]) -> dict[str, Meeting]:
    """From the hash that tells what outlives the log."""
    found: dict[str, Meeting] = {}
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        if name.startswith(_PREFIX):
            first, _, last = value.partition(b" ")
            found[name[len(_PREFIX) :].decode()] = Meeting(parse_time(first), parse_time(last))
    return found


def joined(rows: Mapping[str, SessionRow], met: Mapping[str, Meeting]) -> dict[str, SessionRow]:
    """The sessions, those that only turns have named included."""
    found = dict(rows)
    for session, meeting in met.items():
        row = rows.get(session)
        if row is None:
            found[session] = SessionRow(started_at=meeting.first, last_event_at=meeting.last)
        else:
            last = meeting.last if row.last_event_at is None else max(row.last_event_at, meeting.last)
            found[session] = msgspec.structs.replace(
                row, started_at=min(row.started_at, meeting.first), last_event_at=last
            )
    return found


def row_of(session: str, row: SessionRow) -> dict[str, Any]:
    """As sessions.record_of takes it."""
    return {"session_id": session, **msgspec.structs.asdict(row)}


def completed(known: SessionRow | None, given: SessionRow) -> SessionRow:
    """What an import makes of a session: what is there already is completed only."""
    if known is None:
        return given
    return msgspec.structs.replace(
        known,
        started_at=min(known.started_at, given.started_at),
        last_event_at=max(filter(None, (known.last_event_at, given.last_event_at)), default=None),
        ended_at=known.ended_at or given.ended_at,
        metadata=given.metadata if known.metadata is None else known.metadata,
    )
