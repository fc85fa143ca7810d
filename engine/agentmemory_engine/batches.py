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


class EventRow(msgspec.Struct, frozen=True):
    """An event as it goes into Postgres."""

    agent: str
    id: UUID
    entry: Entry
    index: int
    at: datetime
    accepted_at: datetime
    fingerprint: int
    session: str | None
    event: Event

    @property
    def is_embeddable(self) -> bool:
        """Whether there is any text to search."""
        return bool(searchable_text(self.event.content, raw_or_none(self.event.payload)))


@dataclass(frozen=True, slots=True)
class SessionRow:
    agent: str
    session: str
    first_at: datetime
    last_at: datetime
    last_entry: Entry


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
    agent, key, session = entry.agent, entry.key, entry.session
    return [
        EventRow(
            agent, event_id(agent, key, index), entry.entry, index, event.at or accepted_at, accepted_at, fingerprint,
            session, event,
        )
        for index, event in enumerate(_decoder.decode(entry.events))
    ]  # fmt: skip


def raw_event(entry: JournalEntry, index: int) -> bytes:
    """The JSON of one event as it stands in the journal."""
    return bytes(_raw_decoder.decode(entry.events)[index])


def count_events(entry: JournalEntry) -> int:
    """How many events a journal entry holds."""
    return len(_raw_decoder.decode(entry.events))


def event_columns(rows: Sequence[EventRow]) -> list[tuple[Any, ...]]:
    """The arrays $1 to $16 of insert_events.sql."""
    hashes = {agent: digest_agent(agent) for agent in {row.agent for row in rows}}
    return list(zip(*(_columns(row, hashes[row.agent]) for row in rows), strict=True))


def _columns(row: EventRow, agent_hash: bytes) -> tuple[Any, ...]:
    event = row.event
    return (
        row.agent, agent_hash, row.id, row.entry.opening, row.entry.sequence, row.index, row.at, row.accepted_at,
        row.fingerprint, event.type, event.role, row.session, event.content, _text(event.payload),
        _text(event.metadata), row.is_embeddable,
    )  # fmt: skip


def _text(value: Any) -> str | None:
    return None if value is UNSET else bytes(value).decode()


def sessions_of(rows: Iterable[EventRow]) -> list[SessionRow]:
    """One row for each session that the events name, with the times of its first and last event among them."""
    spans: dict[tuple[str, str], tuple[datetime, datetime, Entry]] = {}
    for row in rows:
        if row.session is None:
            continue
        first, last, entry = spans.get((row.agent, row.session), (row.at, row.at, row.entry))
        spans[row.agent, row.session] = min(first, row.at), max(last, row.at), max(entry, row.entry)
    return [SessionRow(agent, session, *span) for (agent, session), span in sorted(spans.items())]


def session_columns(rows: Sequence[SessionRow]) -> list[tuple[Any, ...]]:
    """The arrays $1 to $7 of upsert_sessions.sql."""
    columns = (
        (row.agent, row.session, row.first_at, row.last_at, digest_agent(row.agent), *row.last_entry) for row in rows
    )
    return list(zip(*columns, strict=True))


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
