from __future__ import annotations

import pytest

from agentmemory_operator import conditions
from agentmemory_operator.conditions import Condition, merge, phase_of, summarize, transitions

GOOD = {kind: Condition(kind, "True", "Good") for kind in conditions.NEEDED}
NOW, LATER = "2026-11-24T12:00:00Z", "2026-11-24T13:00:00Z"


def test_ready_when_all_that_is_needed_is_true() -> None:
    assert summarize(dict(GOOD)).holds


@pytest.mark.parametrize("kind", conditions.NEEDED)
@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_one_that_is_not_true_takes_ready_with_it(kind: str, status: conditions.Verdict) -> None:
    ready = summarize(GOOD | {kind: Condition(kind, status, "Why", "what to do")})
    assert (ready.status, ready.reason) == (status, "Why")
    assert ready.message == f"{kind}: what to do"


@pytest.mark.parametrize("kind", conditions.NEEDED)
def test_of_a_store_that_the_mode_does_not_use_nothing_is_needed(kind: str) -> None:
    found = {other: one for other, one in GOOD.items() if other != kind}
    verdicts = {stores: summarize(found, stores).status for stores in (("redis",), ("postgres",))}
    assert verdicts == {
        ("redis",): "True" if kind in (conditions.POSTGRES, conditions.SCHEMA) else "Unknown",
        ("postgres",): "True" if kind == conditions.REDIS else "Unknown",
    }


def test_redis_alone_promises_no_more_than_it_persists() -> None:
    assert "becomes durable" in summarize(dict(GOOD), ("postgres",)).message
    assert "as durable as Redis is" in summarize(dict(GOOD), ("redis",)).message


@pytest.mark.parametrize("kind", conditions.NEEDED)
def test_what_was_not_looked_at_is_unknown(kind: str) -> None:
    found = {other: one for other, one in GOOD.items() if other != kind}
    assert summarize(found).status == "Unknown"


def test_false_is_told_before_unknown() -> None:
    found = GOOD | {
        conditions.REDIS: Condition(conditions.REDIS, "Unknown", "Unseen"),
        conditions.SCHEMA: Condition(conditions.SCHEMA, "False", "Failed"),
    }
    assert summarize(found).reason == "Failed"


@pytest.mark.parametrize(("reason", "holds"), [("LagCritical", False), ("LagWarning", True), ("DeadLetters", True)])
def test_only_a_critical_lag_takes_ready_with_it(reason: str, holds: bool) -> None:
    lagging = Condition(conditions.CONSOLIDATION, "False", reason, "far behind")
    assert summarize(GOOD | {conditions.CONSOLIDATION: lagging}).holds is holds


def test_a_time_of_transition_stays_as_long_as_the_status_does() -> None:
    first = merge([], [Condition(conditions.READY, "False", "Starting")], generation=1, now=NOW)
    second = merge(first, [Condition(conditions.READY, "False", "Unreachable")], generation=2, now=LATER)
    third = merge(second, [Condition(conditions.READY, "True", "AsDeclared")], generation=2, now=LATER)
    assert [one[0]["lastTransitionTime"] for one in (first, second, third)] == [NOW, NOW, LATER]
    assert [one[0]["observedGeneration"] for one in (first, second, third)] == [1, 2, 2]


def test_the_same_findings_are_the_same_entries() -> None:
    found = [Condition(conditions.PAUSED, "False", "NotPaused"), Condition(conditions.READY, "True", "AsDeclared")]
    first = merge([], found, generation=1, now=NOW)
    assert merge(first, reversed(found), generation=1, now=LATER) == first
    assert transitions(first, found) == []


def test_a_long_message_is_cut() -> None:
    merged = merge([], [Condition(conditions.READY, "False", "Why", "x" * 5000)], generation=1, now=NOW)
    assert len(merged[0]["message"]) == conditions.LONGEST_MESSAGE


def test_another_reason_is_a_transition() -> None:
    old = merge([], [Condition(conditions.READY, "False", "Starting")], generation=1, now=NOW)
    changed = Condition(conditions.READY, "False", "LoginRefused")
    assert transitions(old, [changed]) == [changed]


@pytest.mark.parametrize(
    ("ready", "progressing", "paused", "phase"),
    [
        ("True", "False", "False", "Ready"), ("True", "False", "True", "Paused"), ("False", "True", "False",
        "Progressing"), ("False", "False", "False", "Degraded"), ("Unknown", "False", "False", "Unknown"),
    ],
)  # fmt: skip
def test_phase(
    ready: conditions.Verdict, progressing: conditions.Verdict, paused: conditions.Verdict, phase: str
) -> None:
    assert phase == phase_of(
        Condition(conditions.READY, ready, "Why"),
        Condition(conditions.PROGRESSING, progressing, "Why"),
        Condition(conditions.PAUSED, paused, "Why"),
    )
