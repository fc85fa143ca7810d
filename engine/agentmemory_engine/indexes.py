"""The keyword indexes of the agents that are asked for: built from Postgres, and extended by what is new there.

An agent's rows appear in the order of their positions, since one fenced owner of its shard inserts them. Whatever else
happens to them (an erasure, retention, a dead letter that is replayed, a gap after Postgres went back) is told by a
revision, which is read in the same snapshot as the rows; another one than before, and the index is built anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.postgres import Postgres, aware
from agentmemory_engine.terms import terms_of
from agentmemory_engine.threads import in_thread

if TYPE_CHECKING:
    from agentmemory_engine.postings import Indexed, Postings

_PAGE = 500
_ALONE = 200
"""Events that are indexed at once in the event loop; more go to a thread."""
_HELD = 48 << 20
"""Bytes of all indexes together, about."""
_START = (-1, -1, -1)


@dataclass
class _Held:
    """One agent's index, and up to which row it reaches (opening, sequence, index)."""

    postings: Postings
    place: tuple[int, int, int] = _START
    revision: int | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Indexes:
    """Keeps them, those that were asked for last, within a bound of memory."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._held: OrderedDict[str, _Held] = OrderedDict()

    @asynccontextmanager
    async def fresh(self, agent: str, tail: Sequence[StoredEvent]) -> AsyncIterator[Postings]:
        """The agent's index with all that Postgres holds by now and, inside the block only, its unflushed tail.

        `tail` has to be read before. Nobody else has the index meanwhile. Raises StoreUnavailable.
        """
        async with self._alone(agent) as held:
            try:
                await self._catch_up(agent, held)
                self._make_room()
                pending = await self._pending(held, tail)
                held.postings.add(pending)
                yield held.postings
                held.postings.drop_last(pending)
            except BaseException:
                # It may be in the middle of an event, or hold what is pending for good.
                self._forget(agent, held)
                raise

    @asynccontextmanager
    async def _alone(self, agent: str) -> AsyncIterator[_Held]:
        """The agent's index, which nobody else has meanwhile; not one that was let go of while it was waited for."""
        while True:
            held = self._find(agent)
            async with held.lock:
                if self._held.get(agent) is held:
                    yield held
                    return

    async def _pending(self, held: _Held, tail: Sequence[StoredEvent]) -> list[Indexed]:
        """The tail without what Postgres has already: by its place, or, where it was sent again, by its id."""
        fresh = {event.id: event for event in reversed(tail) if _place(event) > held.place}
        if not fresh:
            return []
        places = held.postings.find(b"".join(identity.bytes for identity in fresh))
        known = {identity for identity, place in zip(fresh, places, strict=True) if place >= 0}
        events = [event for identity, event in reversed(fresh.items()) if identity not in known]
        if len(events) > _ALONE:
            return await in_thread(lambda: [indexed_event(event) for event in events])
        return [indexed_event(event) for event in events]

    @asynccontextmanager
    async def of_tail(self, tail: Sequence[StoredEvent]) -> AsyncIterator[Postings]:
        """An index of these events alone, whatever Postgres holds."""
        from agentmemory_engine.postings import Postings

        alone = _Held(Postings())
        alone.postings.add(await self._pending(alone, tail))
        yield alone.postings

    def forget(self, agent: str) -> None:
        """Build this agent's index anew when it is asked for next."""
        self._held.pop(agent, None)

    def _find(self, agent: str) -> _Held:
        # What runs the numbers is loaded when somebody asks: many a sidecar is never asked.
        from agentmemory_engine.postings import Postings

        held = self._held.get(agent)
        if held is None:
            held = self._held[agent] = _Held(Postings())
        self._held.move_to_end(agent)
        return held

    def _forget(self, agent: str, held: _Held) -> None:
        if self._held.get(agent) is held:
            del self._held[agent]

    async def _catch_up(self, agent: str, held: _Held) -> None:
        from agentmemory_engine.postings import Postings

        while True:
            rows = await self._postgres.fetch("index_events", agent, *held.place, _PAGE)
            revision = rows[0]["revision"]
            if held.revision not in (None, revision):
                held.postings, held.place, held.revision = Postings(), _START, None
                continue
            held.revision = revision
            found = [row for row in rows if row["id"] is not None]
            if len(found) > _ALONE:
                await in_thread(partial(_add, held.postings, found))
            else:
                _add(held.postings, found)
            if found:
                held.place = (found[-1]["opening"], found[-1]["sequence"], found[-1]["index"])
            if len(found) < _PAGE:
                return

    def _make_room(self) -> None:
        """Let go of those that were not asked for the longest; the last one stays."""
        while len(self._held) > 1 and sum(held.postings.size for held in self._held.values()) > _HELD:
            self._held.popitem(last=False)


def _add(postings: Postings, rows: Sequence[Any]) -> None:
    postings.add(map(indexed_row, rows))


def _place(event: StoredEvent) -> tuple[int, int, int]:
    entry = event.position.entry
    return entry.opening, entry.sequence, event.index


def indexed_event(event: StoredEvent) -> Indexed:
    """What the index keeps of an event."""
    from agentmemory_engine.postings import Indexed

    terms = terms_of(searchable_text(event.content, event.payload))
    return Indexed(event.id.bytes, event.at.timestamp(), event.type, event.role, event.session, terms)


def indexed_row(row: Any) -> Indexed:
    """What the index keeps of a row of memory_events."""
    from agentmemory_engine.postings import Indexed

    payload = None if row["payload"] is None else row["payload"].encode()
    terms = terms_of(searchable_text(row["content"], payload))
    return Indexed(row["id"].bytes, aware(row["at"]).timestamp(), row["type"], row["role"], row["session_id"], terms)
