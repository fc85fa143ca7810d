"""Several timelines as one: the order, and that pages of it are the whole, whatever the clocks did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.positions import Entry
from agentmemory_engine.timeline_cursors import Place
from agentmemory_engine.timelines import Standing, merge_standings

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMES = st.lists(st.integers(1, 9), max_size=6)
SEVERAL = st.lists(TIMES, min_size=1, max_size=4)


def timelines_of(times: Sequence[Sequence[int]], *, descending: bool = False) -> list[list[Standing]]:
    """Agents a, b, c, …, with events at these times in this order."""
    made = [
        [
            Standing(
                NOON + timedelta(seconds=time),
                "abcd"[agent],
                Place(Entry(1, number), 0),
                UUID(int=agent * 100 + number),
            )
            for number, time in enumerate(one)
        ]
        for agent, one in enumerate(times)
    ]
    return [timeline[::-1] for timeline in made] if descending else made


def ids(merged: Sequence[Standing]) -> list[UUID]:
    return [one.id for one in merged]


def test_between_agents_the_earlier_comes_first_and_at_equal_times_the_agent_in_front() -> None:
    merged = merge_standings(timelines_of([[2, 4], [1, 2, 3]]), descending=False)
    assert [(one.agent, one.time.second) for one in merged] == [("b", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 4)]


def test_an_event_never_comes_before_its_predecessor() -> None:
    merged = merge_standings(timelines_of([[5, 1], [3, 7]]), descending=False)
    assert [(one.agent, one.place.entry.sequence) for one in merged] == [("b", 0), ("a", 0), ("a", 1), ("b", 1)]


@given(SEVERAL, st.booleans())
def test_each_agent_keeps_its_order_and_nothing_is_left_out(times: list[list[int]], descending: bool) -> None:
    timelines = timelines_of(times, descending=descending)
    merged = merge_standings(timelines, descending=descending)
    assert len(merged) == sum(map(len, timelines))
    for timeline in timelines:
        assert [one for one in ids(merged) if one in ids(timeline)] == ids(timeline)


@given(SEVERAL, st.integers(1, 4), st.booleans())
def test_pages_are_the_whole(times: list[list[int]], size: int, descending: bool) -> None:
    timelines = timelines_of(times, descending=descending)
    whole = merge_standings(timelines, descending=descending)
    paged: list[Standing] = []
    while any(timelines):
        heads = [timeline[: size + 1] for timeline in timelines]
        page = merge_standings(heads, descending=descending)[:size]
        paged += page
        timelines = [[one for one in timeline if one.id not in ids(page)] for timeline in timelines]
    assert ids(paged) == ids(whole)
