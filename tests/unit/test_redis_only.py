"""What mode Redis decides without Redis: vectors as a matrix, times as texts, sessions that come together."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.embedding import from_floats
from agentmemory_engine.errors import ForeignStore, InvalidInput, SchemaMismatch
from agentmemory_engine.identity_records import new_identity, parse_identity
from agentmemory_engine.jsonb import given_json, is_same_json, json_of
from agentmemory_engine.redis_only.log import format_time, parse_time
from agentmemory_engine.redis_only.matrix import Matrix
from agentmemory_engine.redis_only.meetings import Meeting, SessionRow, completed, joined

times = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC))
NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@given(times, times)
def test_times_sort_as_their_texts_do(one: datetime, other: datetime) -> None:
    texts = format_time(one), format_time(other)
    assert [len(text) for text in texts] == [18, 18]
    assert (texts[0] < texts[1], texts[0] == texts[1]) == (one < other, one == other)
    assert parse_time(texts[0].encode()) == one


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return float(product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5)


def test_every_vector_is_compared_and_the_nearest_of_a_text_counts() -> None:
    random.seed(1)
    matrix, told = Matrix(7), {}
    for number in range(200):
        several = [[random.gauss(0, 1) for _ in range(7)] for _ in range(number % 3)]
        told[UUID(int=number)] = several
        matrix.add(UUID(int=number), b"".join(map(from_floats, several)))
    assert len(matrix) == sum(map(len, told.values()))
    query = [random.gauss(0, 1) for _ in range(7)]
    found = matrix.nearest(from_floats(query))
    assert found == {
        one: pytest.approx(1 - max(cosine(query, vector) for vector in several), abs=2e-3)
        for one, several in told.items()
        if several
    }
    kept = {UUID(int=number) for number in range(0, 200, 5)}
    matrix.keep(kept)
    assert matrix.nearest(from_floats(query)) == pytest.approx({one: found[one] for one in kept if one in found})
    matrix.keep(set())
    assert matrix.nearest(from_floats(query)) == {} and matrix.distances(from_floats(query)) == (b"", b"")


def test_sessions_are_those_of_requests_and_of_turns() -> None:
    rows = {"both": SessionRow(started_at=NOON, ended_at=NOON + HOUR), "declared": SessionRow(started_at=NOON)}
    met = {"both": Meeting(NOON - HOUR, NOON + 2 * HOUR), "named": Meeting(NOON, NOON)}
    assert joined(rows, met) == {
        "both": SessionRow(started_at=NOON - HOUR, last_event_at=NOON + 2 * HOUR, ended_at=NOON + HOUR),
        "declared": SessionRow(started_at=NOON),
        "named": SessionRow(started_at=NOON, last_event_at=NOON),
    }


def test_an_import_completes_a_session_and_changes_nothing() -> None:
    known = SessionRow(started_at=NOON, last_event_at=NOON, metadata='{"a": 1}', start_key=b"k")
    given_row = SessionRow(started_at=NOON + HOUR, last_event_at=NOON + HOUR, ended_at=NOON + HOUR, metadata='{"a": 2}')
    expected = SessionRow(
        started_at=NOON, last_event_at=NOON + HOUR, ended_at=NOON + HOUR, metadata='{"a": 1}', start_key=b"k"
    )
    assert completed(known, given_row) == expected == completed(expected, given_row)
    assert completed(None, given_row) == given_row


def test_values_are_the_same_as_jsonb_has_it() -> None:
    def same(one: bytes, other: bytes) -> bool:
        return is_same_json(json_of(one), json_of(other))

    assert same(b'{"a": 1, "b": [1.0, "x"]}', b'{"b": [1, "x"], "a": 1.00}')
    for one, other in ((b"1", b"true"), (b"[1, 2]", b"[2, 1]"), (b'{"a": null}', b"{}"), (b"0.1", b"0.10000000001")):
        assert not same(one, other)


@pytest.mark.parametrize(
    "text", ["1e131072", "1e-16384", "[{}, {'a': 1}]", '{"a": [-1e200000]}', "1e9999999999999999999"]
)
def test_what_jsonb_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        given_json(text)


@pytest.mark.parametrize("text", ["1e131071", "1e-16383", '{"a": [true, null, "1e200000"]}', "-0.0"])
def test_what_jsonb_takes_is_taken(text: str) -> None:
    assert given_json(text) == json_of(text.encode())


def test_an_identity_is_of_one_mode_and_one_number_of_shards() -> None:
    record = new_identity(16)
    assert str(UUID(parse_identity(record, 16))) == record.split()[2]
    with pytest.raises(SchemaMismatch, match="shards: 16"):
        parse_identity(record, 8)
    for foreign in ("0198f0c2", "Postgres 16 x", "Redis", "Redis 16"):
        with pytest.raises(ForeignStore):
            parse_identity(foreign, 16)
