"""Cursors: back as they were put together, and only for the query that they are of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.positions import Entry
from agentmemory_engine.timeline_cursors import Place, format_cursor, parse_cursor

PLACES = st.none() | st.builds(
    Place,
    st.builds(Entry, st.integers(0, 10**10 - 1), st.integers(0, 10**16 - 1)),
    st.integers(0, 32_767),
)
QUERY = TimelineQuery().fingerprint(["a"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@given(st.lists(PLACES, min_size=1, max_size=5))
def test_a_cursor_comes_back_as_it_was(places: list[Place | None]) -> None:
    assert parse_cursor(format_cursor(places, QUERY), QUERY, agents=len(places)) == places


def test_every_part_of_a_query_but_its_limit_makes_another() -> None:
    filters = [
        Filter(), Filter(types=["x"]), Filter(session="x"), Filter(role="x"), Filter(since=NOON), Filter(until=NOON),
        Filter(metadata=b'{"x":1}'), Filter(metadata=b'{"x":2}'),
    ]  # fmt: skip
    queries = [(TimelineQuery(filter=one), ["a"]) for one in filters]
    queries += [(TimelineQuery(order="desc"), ["a"]), (TimelineQuery(), ["b"]), (TimelineQuery(), ["a", "b"])]
    for (one, some), (other, others) in combinations(queries, 2):
        assert one.fingerprint(some) != other.fingerprint(others)
    assert TimelineQuery(limit=7).fingerprint(["a"]) == QUERY


def test_the_same_query_in_other_words_is_the_same() -> None:
    here = NOON.astimezone(timezone(timedelta(hours=5)))
    one = TimelineQuery(filter=Filter(types=["x", "y"], since=NOON))
    other = TimelineQuery(filter=Filter(types=["y", "x"], since=here))
    assert one.fingerprint(["a"]) == other.fingerprint(["a"])


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1", f"{QUERY}", f"{QUERY}.1-1", f"{QUERY}.1-1:", f"{QUERY}.1-1:x", f"{QUERY}.1-1:-1",
        f"{QUERY}.1-1:999999", f"{QUERY}.1-1:0,", f"{QUERY}.1-1:0,1-1:0", f"-{QUERY}.1-1:0",
        f" {QUERY}.1-1:0", f"{QUERY}.99999999999-1:0", f"{QUERY[:-1]}.1-1:0", f"{QUERY}.1-1:0\n", "1.1-1:0",
    ],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not one that a page gave"):
        parse_cursor(text, QUERY, agents=1)


def test_the_cursor_of_another_query_is_refused_and_says_so() -> None:
    text = format_cursor([None], TimelineQuery(order="desc").fingerprint(["a"]))
    with pytest.raises(InvalidInput, match="of another query"):
        parse_cursor(text, QUERY, agents=1)
