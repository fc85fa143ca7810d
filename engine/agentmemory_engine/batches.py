"""From journal entries to rows: pure, so that what a batch becomes can be tested without a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.journal import JournalEntry
from agentmemory_engine.keys import digest_agent, event_id
from agentmemory_engine.positions import Entry
from agentmemory_engine.turns import Event

_decoder = msgspec.json.Decoder(list[Event])
_raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as it goes into Postgres. `raw` is its JSON in the journal."""

    agent: str
    id: UUID
    entry: Entry
    index: int
    at: datetime
    accepted_at: datetime
    fingerprint: int
    session: str | None
    event: Event
    raw: bytes

    @property
    def text(self) -> str:
        """What of the event is searched."""
        return searchable_text(self.event.content, raw_or_none(self.event.payload))


@dataclass(frozen=True, slots=True)
class SessionRow:
    agent: str
    session: str
    first_at: datetime
    last_at: datetime


def raw_or_none(value: Any) -> bytes | None:
    """The bytes of an optional JSON member."""
    return None if value is UNSET else bytes(value)


def moment(milliseconds: int) -> datetime:
    """A time from milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def rows_of(entry: JournalEntry) -> list[EventRow]:
    """The rows of one journal entry, in order."""
    accepted_at = moment(entry.accepted_ms)
    fingerprint = int.from_bytes(entry.fingerprint, "big", signed=True)
    events = _decoder.decode(entry.events)
    raws = _raw_decoder.decode(entry.events)
    return [
        EventRow(
            agent=entry.agent,
            id=event_id(entry.agent, entry.key, index),
            entry=entry.entry,
            index=index,
            at=event.at or accepted_at,
            accepted_at=accepted_at,
            fingerprint=fingerprint,
            session=entry.session,
            event=event,
            raw=bytes(raw),
        )
        for index, (event, raw) in enumerate(zip(events, raws, strict=True))
    ]


def event_columns(rows: Sequence[EventRow]) -> list[list[Any]]:
    """The arrays $1 to $16 of insert_events.sql."""
    hashes = {row.agent: digest_agent(row.agent) for row in rows}
    return [
        [row.agent for row in rows],
        [hashes[row.agent] for row in rows],
        [row.id for row in rows],
        [row.entry.opening for row in rows],
        [row.entry.sequence for row in rows],
        [row.index for row in rows],
        [row.at for row in rows],
        [row.accepted_at for row in rows],
        [row.fingerprint for row in rows],
        [row.event.type for row in rows],
        [row.event.role for row in rows],
        [row.session for row in rows],
        [row.event.content for row in rows],
        [_text(row.event.payload) for row in rows],
        [_text(row.event.metadata) for row in rows],
        [not row.text.isspace() and row.text != "" for row in rows],
    ]


def _text(value: Any) -> str | None:
    return None if value is UNSET else bytes(value).decode()


def sessions_of(rows: Iterable[EventRow]) -> list[SessionRow]:
    """One row for each session that the events name, with the times of its first and last event among them."""
    spans: dict[tuple[str, str], tuple[datetime, datetime]] = {}
    for row in rows:
        if row.session is None:
            continue
        first, last = spans.get((row.agent, row.session), (row.at, row.at))
        spans[row.agent, row.session] = min(first, row.at), max(last, row.at)
    return [SessionRow(agent, session, *span) for (agent, session), span in sorted(spans.items())]


def batch_limit(size: int, attempts: int) -> int:
    """How many entries to take when owners have stopped at the head of the stream `attempts` times before.

    Halves with each attempt past the first few, so that what crashes the worker ends up alone.
    """
    return max(1, size >> max(0, attempts - 2))


def is_deadly(size: int, attempts: int) -> bool:
    """Whether the head of the stream, alone, has crashed the worker three times."""
    return attempts >= 3 and batch_limit(size, attempts - 3) == 1


def lease_milliseconds(ttl: float, idle: float) -> int:
    """How long working memory may still live when its agent was last active `idle` seconds ago.

    At least a minute (or the ttl, where that is shorter), so that the end of a long outage is no mass expiry.
    """
    return int(max(min(60.0, ttl), ttl - max(0.0, idle)) * 1000)
