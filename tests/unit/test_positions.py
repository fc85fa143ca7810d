"""Positions are ordered, and survive being written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.errors import InvalidPosition
from agentmemory_engine.positions import Entry, Position

entries = st.builds(Entry, st.integers(0, 10**9), st.integers(0, 10**15))
positions = st.builds(Position, st.integers(0, 1023), entries)


@given(positions)
def test_a_position_is_read_back_as_it_was_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(entries, entries)
def test_entries_are_ordered_as_redis_orders_stream_ids(one: Entry, other: Entry) -> None:
    assert (one < other) == ((one.opening, one.sequence) < (other.opening, other.sequence))
    assert one < one.next()


@pytest.mark.parametrize(
    "text", ["", "3", "3.7", "3.7-", "-1.7-1", "3.7-1042 ", "3.7-x", "३.7-1", "3.7-1042\n", "a" * 100]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidPosition):
        Position.parse(text)
