"""The timelines of several agents as one.

Each agent's events keep their own order, whatever the clocks say; between agents, what was accepted earlier comes
first, and at equal times the agent whose id sorts first. An event with a time before that of its predecessor, because a
clock was set back, stands where its predecessor's time puts it.

A page ends at a place of each agent, so that nothing is left out or given twice, whatever is written between two pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple
from uuid import UUID

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Events, TimelineQuery, select_events
from agentmemory_engine.positions import Entry
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.stored_events import event_of_record, place_of
from agentmemory_engine.tail import Unflushed
from agentmemory_engine.timeline_cursors import Cursor, Place, format_cursor

MAX_AGENTS = 50
_BEFORE_ALL = Place(Entry(-1, -1), -1)
_AFTER_ALL = Place(Entry((1 << 63) - 1, (1 << 63) - 1), (1 << 15) - 1)


class AgentEvent(NamedTuple):
    """An event, and whose it is."""

    agent: str
    event: StoredEvent


class MergedPage(NamedTuple):
    """Part of several timelines. `cursor` continues it; None at the end. `degraded` names what could not be asked."""

    events: list[AgentEvent]
    cursor: str | None
    degraded: list[str]


class Standing(NamedTuple):
    """Where an event stands, and when it was accepted."""

    time: datetime
    agent: str
    place: Place
    id: UUID


def merge_standings(timelines: Sequence[Sequence[Standing]], *, descending: bool) -> list[Standing]:
    """The timelines, each in its own order, as one."""
    further = min if descending else max
    # A place for each time, so that "later" is "more" in both orders.
    times = sorted({one.time for timeline in timelines for one in timeline}, reverse=descending)
    rank = {time: number for number, time in enumerate(times)}
    merged = []
    for timeline in timelines:
        for number, reached in enumerate(accumulate((one.time for one in timeline), further)):
            merged.append((rank[reached], timeline[number].agent, number, timeline[number]))
    return [one for *_, one in sorted(merged)]


class Timelines:
    """Reads episodic memory across agents."""

    def __init__(self, postgres: Postgres, events: Events, settings: Settings) -> None:
        self._postgres = postgres
        self._events = events
        self._settings = settings

    async def page(self, agents: Sequence[str], query: TimelineQuery) -> MergedPage:
        """A page of what these agents did. First the tails, then Postgres, so that nothing on its way is missed.

        Without Redis the page is `degraded`: what is not flushed is missing. Raises InvalidInput, StoreUnavailable.
        """
        agents = sorted(set(agents))
        if not 1 <= len(agents) <= MAX_AGENTS:
            raise InvalidInput(f"A timeline is of 1 to {MAX_AGENTS} agents, and {len(agents)} are named.")
        given = query.start(agents) or [None] * len(agents)
        unflushed = await asyncio.gather(*map(self._events.unflushed, agents))
        tails = [one.pending for one in unflushed]
        start = [one.begin(place, descending=query.descending) for one, place in zip(unflushed, given, strict=True)]
        pending = {
            (agent, event.id): event
            for agent, place, (tail, _) in zip(agents, start, tails, strict=True)
            for event in select_events(tail, query.filter, place, descending=query.descending)
        }
        merged = merge_standings(
            await self._timelines(dict(zip(agents, unflushed, strict=True)), query, start, pending),
            descending=query.descending,
        )
        page = merged[: query.limit]
        cursor = None
        if len(merged) > query.limit:
            ends = dict(zip(agents, start, strict=True)) | {one.agent: one.place for one in page}
            cursor = format_cursor([ends[agent] for agent in agents], query.fingerprint(agents))
        degraded = sorted({part for _, parts in tails for part in parts})
        return MergedPage(await self._whole(page, pending), cursor, degraded)

    async def _timelines(
        self,
        unflushed: dict[str, Unflushed],
        query: TimelineQuery,
        start: Cursor,
        pending: dict[tuple[str, UUID], StoredEvent],
    ) -> list[list[Standing]]:
        """The next of each agent's events from both tiers, one more than fit on the page; nothing that is erased."""
        agents = list(unflushed)
        unset = _AFTER_ALL if query.descending else _BEFORE_ALL
        places = [(*place.entry, place.number) for place in (one or unset for one in start)]
        columns = [list(column) for column in zip(*places, strict=True)]
        statement = "timelines_backwards" if query.descending else "timelines"
        records = await self._postgres.ask(statement, agents, *columns, *query.filter.parameters(), query.limit + 1)
        found = {key: Standing(event.accepted_at, key[0], place_of(event), key[1]) for key, event in pending.items()}
        for record in records:
            place = Place(Entry(record["opening"], record["sequence"]), record["index"])
            agent, event = record["agent_id"], record["id"]
            if not unflushed[agent].hides(place.entry):
                found[agent, event] = Standing(record["accepted_at"], agent, place, event)
        timelines: dict[str, list[Standing]] = {agent: [] for agent in agents}
        for one in sorted(found.values(), key=lambda one: one.place, reverse=query.descending):
            timelines[one.agent].append(one)
        return [timeline[: query.limit + 1] for timeline in timelines.values()]

    async def _whole(self, page: list[Standing], pending: dict[tuple[str, UUID], StoredEvent]) -> list[AgentEvent]:
        """The events of a page; one that was erased meanwhile is gone from it."""
        missing = [(one.agent, one.id) for one in page if (one.agent, one.id) not in pending]
        found = dict(pending)
        if missing:
            for record in await self._postgres.fetch("events_of_agents", *map(list, zip(*missing, strict=True))):
                agent = record["agent_id"]
                found[agent, record["id"]] = event_of_record(self._settings.shard_of(agent), record)
        return [AgentEvent(one.agent, found[one.agent, one.id]) for one in page if (one.agent, one.id) in found]
