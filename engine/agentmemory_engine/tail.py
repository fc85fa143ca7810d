"""The tail: what of an agent is acknowledged and not yet in Postgres."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.batches import rows_of
from agentmemory_engine.errors import ShardClosed, StoreUnavailable
from agentmemory_engine.journal import ERASED, Journal, JournalEntry
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.positions import START, Entry
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_row
from agentmemory_engine.timeline_cursors import LAST_INDEX, Place

UNFLUSHED = "unflushed"
_HELD_EVENTS = 20_000


@dataclass(frozen=True)
class Unflushed:
    """What is acknowledged of an agent and not yet in Postgres, in order; None where it cannot be asked.

    While an erasure is under way, `erased` is its entry: what Postgres still has at or before it does not count any
    more. `erasure` is it as it stands in the journal. `read` is how far the journal was read.
    """

    events: list[StoredEvent] | None
    erased: Entry | None = None
    read: Entry = START
    erasure: JournalEntry | None = None

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
    erased: dict[str, JournalEntry] = field(default_factory=dict)
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
                self.erased[entry.agent] = entry
            elif followed is not None:
                followed += (event_of_row(shard, row) for row in rows_of(entry))
            self.following = entry.entry.next()

    def drop_trimmed(self, first: Entry | None) -> None:
        if first == self.first:
            return
        self.first = first
        for agent, events in self.agents.items():
            self.agents[agent] = [event for event in events if first is not None and event.position.entry >= first]
        self.erased = {
            agent: erasure for agent, erasure in self.erased.items() if first is not None and erasure.entry >= first
        }

    def forget_oldest(self) -> None:
        """Let go of the agents that were not asked for the longest, where much is held; the last one stays."""
        while len(self.agents) > 1 and sum(map(len, self.agents.values())) > _HELD_EVENTS:
            agent, _ = self.agents.popitem(last=False)
            self.erased.pop(agent, None)


class Tails(Protocol):
    """Tells what is unflushed. Every call raises ShardClosed or StoreUnavailable."""

    async def unflushed(self, agent: str) -> Unflushed:
        """The agent's pending events, and its last pending erasure."""
        ...


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
            erasure = followed.erased.get(agent)
            return Unflushed(list(followed.agents[agent]), erasure and erasure.entry, read, erasure)

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


async def read_unflushed(tail: Tails, postgres: Postgres, agent: str) -> Unflushed:
    """As Tail.unflushed; without Redis no events, and an erasure that is under way from its mark in Postgres.

    Raises StoreUnavailable when neither can be asked.
    """
    try:
        return await tail.unflushed(agent)
    except (StoreUnavailable, ShardClosed):
        row = await postgres.fetchrow("pending_erasure", digest_agent(agent))
        return Unflushed(None, None if row is None else Entry(row["opening"], row["sequence"]))
