"""Times that a query names, in words that people use."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.moments import Life, find_spans

NOW = datetime(2026, 11, 24, 15, 30, tzinfo=UTC)  # a Tuesday
LIFE = Life(datetime(2026, 3, 2, 8, tzinfo=UTC), datetime(2026, 11, 24, 15, tzinfo=UTC), NOW)
LONG_AGO = Life(datetime(1970, 4, 11, 19, tzinfo=UTC), datetime(1970, 4, 17, 18, tzinfo=UTC), NOW)


def named(query: str, life: Life = LIFE) -> list[tuple[str, str]]:
    zone = life.now.tzinfo or UTC
    return [
        tuple(datetime.fromtimestamp(end, zone).strftime("%Y-%m-%d %H:%M") for end in (span.start, span.end))  # type: ignore[misc]
        for span in find_spans(query, life)
    ]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("what did it do last Tuesday?", "2026-11-17 00:00", "2026-11-18 00:00"),
        ("what did it do on Monday?", "2026-11-23 00:00", "2026-11-24 00:00"),
        ("what happened yesterday", "2026-11-23 00:00", "2026-11-24 00:00"),
        ("the day before yesterday", "2026-11-22 00:00", "2026-11-23 00:00"),
        ("what did we say this morning", "2026-11-24 05:00", "2026-11-24 12:00"),
        ("the noise last night", "2026-11-23 18:00", "2026-11-24 05:00"),
        ("on the evening of the 14th", "2026-11-14 17:00", "2026-11-14 22:00"),
        ("the figures of the 30th", "2026-10-30 00:00", "2026-10-31 00:00"),
        ("on April 3rd", "2026-04-03 00:00", "2026-04-04 00:00"),
        ("on 3 April 2025", "2025-04-03 00:00", "2025-04-04 00:00"),
        ("on Dec. 24", "2025-12-24 00:00", "2025-12-25 00:00"),
        ("on 2026-11-22 at 14:05", "2026-11-22 14:05", "2026-11-22 14:05"),
        ("around 9 pm on the 20th of November", "2026-11-20 21:00", "2026-11-20 21:00"),
        ("between 14:00 and 15:30 yesterday", "2026-11-23 14:00", "2026-11-23 15:30"),
        ("yesterday at noon", "2026-11-23 12:00", "2026-11-23 12:00"),
        ("half an hour after midnight on November 20", "2026-11-20 00:30", "2026-11-20 00:30"),
        ("20 minutes before 9:10 am yesterday", "2026-11-23 08:50", "2026-11-23 08:50"),
        ("two or 3 days ago", "2026-11-21 00:00", "2026-11-22 00:00"),
        ("a week ago", "2026-11-16 00:00", "2026-11-19 00:00"),
        ("3 hours ago", "2026-11-24 12:30", "2026-11-24 12:30"),
        ("in April", "2026-04-01 00:00", "2026-05-01 00:00"),
        ("during March 2025", "2025-03-01 00:00", "2025-04-01 00:00"),
        ("last week", "2026-11-16 00:00", "2026-11-23 00:00"),
        ("this month", "2026-11-01 00:00", "2026-12-01 00:00"),
        ("last month", "2026-10-01 00:00", "2026-11-01 00:00"),
    ],
)
def test_a_time_is_understood(query: str, start: str, end: str) -> None:
    assert named(query) == [(start, end)]


@pytest.mark.parametrize(
    ("query", "start"),
    [
        ("What did Houston suggest around 08:36 on April 17?", "1970-04-17 08:36"),
        ("what was said on the 14th", "1970-04-14 00:00"),
        ("in April", "1970-04-01 00:00"),
    ],
)
def test_a_day_without_a_year_is_one_that_the_agent_lived(query: str, start: str) -> None:
    assert [one for one, _ in named(query, LONG_AGO)] == [start]


@pytest.mark.parametrize(
    "query",
    [
        "what is the plan", "at 21:38", "in the evening", "the 99th", "February 31", "it may rain 5 times",
        "10:65 on nothing", "version 2026-13-40", "marching 12 miles", "it was 12:30",
    ],
)  # fmt: skip
def test_what_names_no_day_counts_for_nothing(query: str) -> None:
    assert named(query) == []


def test_a_day_is_one_of_the_agents_time_zone() -> None:
    zone = ZoneInfo("America/New_York")
    life = Life.between(LIFE.first.timestamp(), LIFE.last.timestamp(), NOW, zone)
    (span,) = find_spans("on November 20 at 9 pm", life)
    assert datetime.fromtimestamp(span.start, UTC) == datetime(2026, 11, 21, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        "until 9999-12-31", "from 0001-01-01", "on 9998-12-31 at 23:59", "today " * 2000 + "noon " * 2000,
        "noon" * 5000,
        "the 31st " * 500, "in april " * 500, "99 days ago " * 300, "9999 hours ago " * 300, "january 31 " * 500,
    ],
)  # fmt: skip
def test_a_hostile_query_is_cheap_and_harms_nobody(query: str) -> None:
    for first, last in ((1e9, 2e9), (-62135596800.0, 253402300799.999999), (253402300799.9, 253402300799.9)):
        for zone in ("UTC", "Europe/Vienna", "America/New_York"):
            life = Life.between(first, last, NOW, ZoneInfo(zone))
            assert len(find_spans(query, life)) <= 80


@given(
    st.text(max_size=200)
    | st.from_regex(r"(on |the |last |in )?[0-9]{1,5}(st|th|:[0-9]{2}| days ago| april)?", fullmatch=True)
)
def test_no_query_is_too_odd(query: str) -> None:
    for span in find_spans(query, LIFE):
        assert span.start <= span.end
        assert span.slack > 0
