"""The tail, where it is all there is: the events in each agent's log."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.batches import EventRow, rows_of
from agentmemory_engine.journal import ERASED, JournalEntry, patiently
from agentmemory_engine.keys import event_id
from agentmemory_engine.positions import START, Entry
from agentmemory_engine.redis_only.log import Log
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_row
from agentmemory_engine.tail import Unflushed

_HELD = 32 << 20
"""Bytes of all events together, about."""
_EVENT = 1000


@dataclass
class _Followed:
    """How far one agent's log was read, and what it holds."""

    opening: int = -1
    first: Entry | None = None
    following: Entry = START
    events: list[StoredEvent] = field(default_factory=list)
    bodies: dict[UUID, int] = field(default_factory=dict)
    """The fingerprint of each turn by the ids of its events."""
    size: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def restart(self, opening: int) -> None:
        self.opening, self.first, self.following = opening, None, START
        self._clear()

    def _clear(self) -> None:
        self.events, self.bodies, self.size = [], {}, 0

    def take(self, shard: int, entries: Iterable[JournalEntry]) -> None:
        for entry in entries:
            if entry.change == ERASED:
                self._clear()
            for row in rows_of(entry):
                self._add(shard, row, entry.key)
            self.following = entry.entry.next()

    def _add(self, shard: int, row: EventRow, key: bytes) -> None:
        """A turn that was sent again after its key was forgotten is there already; another one under its key is not."""
        known = self.bodies.get(row.id)
        if known is not None and known != row.fingerprint:
            variant = row.fingerprint.to_bytes(8, "big", signed=True)
            row = msgspec.structs.replace(row, id=event_id(row.agent, key + variant, row.index))
            known = self.bodies.get(row.id)
        if known is None:
            event = event_of_row(shard, row)
            self.bodies[row.id] = row.fingerprint
            self.events.append(event)
            self.size += _size(event)

    def drop_trimmed(self, first: Entry | None) -> None:
        if first == self.first:
            return
        self.first = first
        self.events = [event for event in self.events if first is not None and event.position.entry >= first]
        self.bodies = {event.id: self.bodies[event.id] for event in self.events}
        self.size = sum(map(_size, self.events))


def _size(event: StoredEvent) -> int:
    return _EVENT + len(event.content or "") + len(event.payload or b"") + len(event.metadata or b"")


class LogTail:
    """The events of agents. Asking again costs what is new since."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._agents: OrderedDict[str, _Followed] = OrderedDict()

    async def unflushed(self, agent: str) -> Unflushed:
        """All that is kept of the agent, in order. Raises ShardClosed, StoreUnavailable."""
        followed = self._agents.setdefault(agent, _Followed())
        self._agents.move_to_end(agent)
        async with followed.lock:
            await patiently(lambda: self._catch_up(agent, followed))
            self._forget_oldest()
            read = Entry(followed.following.opening, max(0, followed.following.sequence - 1))
            return Unflushed(list(followed.events), None, read)

    async def _catch_up(self, agent: str, followed: _Followed) -> None:
        shard = self._settings.shard_of(agent)
        while True:
            page = await self._log.page(agent, followed.following)
            if page.opening != followed.opening:
                # Redis may have gone back.
                followed.restart(page.opening)
                continue
            # First what went: its ids may have come again.
            followed.drop_trimmed(page.first)
            followed.take(shard, page.entries)
            if not page.more:
                return

    def _forget_oldest(self) -> None:
        """Let go of those that were not asked for the longest, where much is held; the last one stays."""
        while len(self._agents) > 1 and sum(one.size for one in self._agents.values()) > _HELD:
            self._agents.popitem(last=False)
