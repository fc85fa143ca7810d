"""The demonstration's own parts: its story, its account, and its percentiles."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory.demo.latency import percentile
from agentmemory.demo.ledger import Ledger, audit
from agentmemory.demo.report import Answered
from agentmemory.demo.story import Question, read_days, read_questions, readings
from agentmemory.models import EventId, Hit, Receipt


def ledger_of(*ids: str, day: str = "day-1") -> Ledger:
    ledger = Ledger()
    for id in ids:
        ledger.enter(Receipt(position=f"3.1-{id}", events=[EventId(id)]), day)
    return ledger


def searchable(*ids: str) -> dict[str, str]:
    return {f"3.1-{id}": "searchable" for id in ids}


def test_equal_numbers_pass() -> None:
    outcome = audit(ledger_of("1", "2"), ["2", "1"], searchable("1", "2"))
    (day,) = outcome.days.values()
    assert (day.acknowledged, day.durable, day.searchable, day.found) == (2, 2, 2, 2)
    assert (outcome.lost, outcome.doubled, outcome.passed) == (0, 0, True)


@pytest.mark.parametrize(
    ("acknowledged", "timeline", "lost", "doubled"),
    [
        (["1", "2"], ["1"], 1, 0),
        (["1"], ["1", "1"], 0, 1),
        (["1"], ["1", "9"], 0, 1),
        (["1", "1"], ["1"], 1, 0),
        (["1", "2"], ["1", "9"], 1, 1),
    ],
)
def test_what_is_lost_or_doubled_is_counted(
    acknowledged: list[str], timeline: list[str], lost: int, doubled: int
) -> None:
    outcome = audit(ledger_of(*acknowledged), timeline, searchable(*acknowledged))
    assert (outcome.lost, outcome.doubled, outcome.passed) == (lost, doubled, False)


@pytest.mark.parametrize("state", ["durable", "pending", "lost", "unknown"])
def test_what_is_not_searchable_does_not_pass(state: str) -> None:
    outcome = audit(ledger_of("1"), ["1"], {"3.1-1": state})
    (day,) = outcome.days.values()
    assert (day.durable, day.searchable, outcome.passed) == (state == "durable", 0, False)


def test_the_story_has_five_days_and_answers_every_question() -> None:
    days = read_days()
    turns = [turn for day in days.values() for turn in day]
    labels = [turn.event.metadata["label"] for turn in turns if turn.event.metadata]
    assert [12 <= len(day) <= 20 for day in days.values()] == [True] * 5
    assert len(labels) == len(set(labels))
    assert {label for question in read_questions() for label in question.expects} <= set(labels)
    assert [turn.event.at for turn in turns] == sorted(turn.event.at for turn in turns if turn.event.at)


def test_readings_repeat_themselves_word_for_word() -> None:
    said = [(turn.event.content, str(turn.event.payload)) for turn in readings("day-4")]
    assert len(set(said)) < len(said) / 10


def test_an_answer_has_the_rank_of_the_first_hit_with_a_label_that_was_expected() -> None:
    hits = [
        Hit(id=label, position="3.1-1", at=datetime(2026, 1, 12, tzinfo=UTC), score=0.5, metadata={"label": label})
        for label in ("budget", "order", "training")
    ]
    assert Answered(Question(question="?", expects=["budget"]), hits).rank == 1
    assert Answered(Question(question="?", expects=["training", "order"]), hits).rank == 2
    assert Answered(Question(question="?", expects=["customs"]), hits).rank is None


@given(st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=300), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    needed = share * len(values) - 1e-9
    assert found in values
    assert sum(value <= found for value in values) >= needed
    assert sum(value < found for value in values) < needed
