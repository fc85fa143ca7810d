"""Stored events from the forms in which the stores have them."""

from __future__ import annotations

from typing import Any

import msgspec

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.batches import EventRow, moment, raw_or_none
from agentmemory_engine.keys import event_id
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import aware
from agentmemory_engine.timeline_cursors import Place
from agentmemory_engine.turns import Event


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
        at=aware(record["at"]),
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
