"""A workload as it is seen in a live memory, through its sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from agentmemory.client import AgentMemory
from agentmemory.errors import NotFound
from agentmemory.models import Event, Status

LOOKED_AT = 2000
"""The newest events of each agent."""
_PAGE = 500
_DAY = 86_400.0
_SHORTEST = 3600.0
"""Seconds: what was seen for less than an hour is not counted up to a day."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the agents did, in the members of a Workload, and what the status says that a person should know."""

    described: dict[str, Any]
    events: int
    findings: list[str]


async def observe(memory: AgentMemory, agents: Sequence[str]) -> Observation:
    """Look at the newest events and the documents of some agents. Others are taken to be like them.

    Raises AgentMemoryError; ValueError where the agents have done nothing yet.
    """
    status = await memory.status()
    seen = {agent: await _newest(memory, agent) for agent in agents}
    events = [event for each in seen.values() for event in each]
    if not events:
        raise ValueError(f"{', '.join(agents)}: no events yet, so there is nothing to count from")
    documents = [await _document_size(memory, agent) for agent in agents]
    return Observation(
        described=_describe(seen) | {"documentSize": round(sum(documents) / len(documents)), "agents": len(agents)},
        events=len(events),
        findings=findings(status),
    )


def findings(status: Status) -> list[str]:
    """What is wrong, or remarkable, with the memory as it is."""
    found = [f"{store} does not answer." for store in status.degraded]
    if status.persistence:
        found.append(f"What is acknowledged is kept by: {status.persistence}.")
    if status.dead_letters:
        found.append(f"{status.dead_letters:,} dead letters wait for a person: agentmemory dead-letters list.")
    if status.unembeddable:
        found.append(f"{status.unembeddable:,} events are found by their words only: no provider takes them.")
    if status.lag_seconds is not None and status.lag_seconds > 60:
        found.append(f"Consolidation is {status.lag_seconds:,.0f} s behind.")
    return found


async def _newest(memory: AgentMemory, agent: str) -> list[Event]:
    events: list[Event] = []
    async for event in memory.agent(agent).timeline(order="desc", page_size=_PAGE):
        events.append(event)
        if len(events) >= LOOKED_AT:
            break
    return events


async def _document_size(memory: AgentMemory, agent: str) -> int:
    try:
        return len(msgspec.json.encode((await memory.agent(agent).working_memory()).document))
    except NotFound:
        return 0


def _describe(seen: dict[str, list[Event]]) -> dict[str, Any]:
    """Rates of an agent, as the mean of those that have done anything."""
    active = [events for events in seen.values() if events]
    days = [_days_of(events) for events in active]
    events = sum(map(len, active))
    turns = sum(len({event.position for event in each}) for each in active)
    sessions = sum(max(1, len({event.session for event in each if event.session})) for each in active)
    sizes = sum(len((event.content or "").encode()) + _json_size(event.payload) for each in active for event in each)
    sessions_a_day = sum(
        max(1, len({event.session for event in each if event.session})) / span
        for each, span in zip(active, days, strict=True)
    ) / len(active)
    return {
        "sessionsPerDay": round(sessions_a_day, 3),
        "turnsPerSession": round(turns / sessions, 2),
        "eventsPerTurn": round(events / turns, 2),
        "eventSize": round(sizes / events),
    }


def _days_of(events: list[Event]) -> float:
    """From the oldest that was looked at to now."""
    oldest = min(event.accepted_at or event.at for event in events)
    return max(_SHORTEST, (datetime.now(UTC) - oldest).total_seconds()) / _DAY


def _json_size(value: Any) -> int:
    return 0 if value is None else len(msgspec.json.encode(value))
