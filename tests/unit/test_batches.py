"""From journal entries to rows, and the rules of thumb of a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.batches import batch_limit, is_deadly, lease_milliseconds, raw_event, rows_of, sessions_of
from agentmemory_engine.consolidation import is_due, needs_opening
from agentmemory_engine.journal import JournalEntry, Probe
from agentmemory_engine.positions import Entry
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Owned, fair_share
from agentmemory_engine.status import searchable_of


def entry(events: bytes, session: str | None = "s", accepted_ms: int = 1_000) -> JournalEntry:
    return JournalEntry(Entry(1, 2), "a", accepted_ms, b"k" * 16, b"\xff" * 8, session, events, "")


def test_rows_carry_index_time_and_the_events_own_bytes() -> None:
    journalled = entry(b'[{"content":"x"},{"at":"2026-01-01T00:00:00Z","payload":{"n":1.50}}]')
    first, second = rows_of(journalled)
    assert raw_event(journalled, 1) == b'{"at":"2026-01-01T00:00:00Z","payload":{"n":1.50}}'
    assert (first.index, second.index) == (0, 1)
    assert first.at == first.accepted_at and second.at.year == 2026
    assert bytes(second.event.payload) == b'{"n":1.50}'  # type: ignore[arg-type]
    assert first.fingerprint == -1
    assert first.id != second.id


def test_sessions_span_their_events() -> None:
    rows = rows_of(entry(b'[{"content":"x","at":"2026-01-02T00:00:00Z"},{"content":"y","at":"2026-01-01T00:00:00Z"}]'))
    [session] = sessions_of([*rows, *rows_of(entry(b'[{"content":"z"}]', session=None))])
    assert (session.first_at.day, session.last_at.day) == (1, 2)


@given(st.integers(1, 10_000))
def test_an_entry_that_keeps_crashing_owners_ends_alone_and_only_then_is_deadly(size: int) -> None:
    attempts = 0
    while not is_deadly(size, attempts):
        attempts += 1
        assert batch_limit(size, attempts) >= 1
    alone = [number for number in range(attempts) if batch_limit(size, number) == 1]
    assert len(alone) >= 3
    assert batch_limit(size, 0) == batch_limit(size, 2) == size


@pytest.mark.parametrize(
    ("ttl", "idle", "seconds"),
    [(3600, 0, 3600), (3600, 600, 3000), (3600, 10_000, 60), (5, 0, 5), (5, 100, 5), (60, -9, 60)],
)
def test_a_lease_counts_from_the_last_activity_and_is_never_shorter_than_a_minute(
    ttl: float, idle: float, seconds: float
) -> None:
    assert lease_milliseconds(ttl, idle) == seconds * 1000


@given(st.integers(1, 1024), st.integers(0, 200))
def test_fair_shares_cover_all_shards(shards: int, sidecars: int) -> None:
    assert fair_share(shards, sidecars) * max(1, sidecars) >= shards


OWNED = Owned(0, 1, 3, Entry(3, 10))


@pytest.mark.parametrize(
    ("mark", "trimmed", "needed"),
    [
        ((b"run", 3), None, False),
        ((b"run", 3), Entry(3, 10), False),
        ((b"run", 3), Entry(3, 11), True),
        ((b"run", 2), None, True),
        ((b"older", 3), None, True),
        (None, None, True),
    ],
)
def test_when_a_shard_has_to_be_opened(mark: tuple[bytes, int] | None, trimmed: Entry | None, needed: bool) -> None:
    assert needs_opening(OWNED, Probe(mark, trimmed, 0, 0.0, b"run")) is needed


def test_a_batch_is_due_when_full_or_old() -> None:
    settings = Settings(namespace="n", name="n", max_delay=5.0, batch_size=10)
    assert not is_due(Probe(None, None, 9, 4.9, b""), settings, waited=4.9)
    assert is_due(Probe(None, None, 10, 0.0, b""), settings, waited=0.0)
    assert is_due(Probe(None, None, 1, 5.0, b""), settings, waited=0.0)
    assert is_due(Probe(None, None, 1, 0.0, b""), settings, waited=5.0), "a clock that stepped back hides no one"
    assert not is_due(Probe(None, None, 0, 0.0, b""), settings, waited=9.0)


@pytest.mark.parametrize(
    ("queued", "searchable"),
    [(None, Entry(3, 10)), (Entry(3, 11), Entry(3, 10)), (Entry(3, 5), Entry(3, 4)), (Entry(3, 0), Entry(0, 0))],
)
def test_searchable_ends_before_the_first_that_waits(queued: Entry | None, searchable: Entry) -> None:
    assert searchable_of(Entry(3, 10), queued) == searchable
