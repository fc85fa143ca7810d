"""How much of each thing is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of calls and rows; `poll_seconds` is a duration."""

    rounds: int
    warm_up: int
    """Calls before those that count, in each round."""
    calls: int
    """Calls of a probe in a round."""
    poll_seconds: float
    consolidation_rounds: int
    turns: int
    """Turns in the journal when consolidation starts."""
    indexed_rows: int
    """Rows in the baseline's table, under its HNSW index, before it is measured."""
    indexed_inserts: int
    """Turns that the baseline inserts in a round."""
    events: int
    """Length of the generated conversation."""
    queries: int
    agents: int
    events_each: int
    """Events of each agent of the fleet."""
    large_agent: int
    """Events of the one large agent."""


FULL = Sizes(
    rounds=11, warm_up=200, calls=2000, poll_seconds=20.0, consolidation_rounds=5, turns=20_000, indexed_rows=20_000,
    indexed_inserts=300, events=10_000, queries=400, agents=200, events_each=500,
    large_agent=50_000,
)  # fmt: skip
QUICK = Sizes(
    rounds=3, warm_up=30, calls=200, poll_seconds=2.0, consolidation_rounds=1, turns=4_000, indexed_rows=2_000,
    indexed_inserts=60, events=300, queries=40, agents=10, events_each=200,
    large_agent=1_000,
)  # fmt: skip
