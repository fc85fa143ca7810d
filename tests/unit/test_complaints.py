"""What lasts is said once, then at growing intervals."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from agentmemory_engine import complaints
from agentmemory_engine.complaints import Complaints


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    clock = Clock()
    monkeypatch.setattr(complaints, "time", clock)
    caplog.set_level(logging.INFO)
    return clock


@pytest.fixture
def trouble() -> Complaints:
    return Complaints(logging.getLogger("test"), "it waits")


def test_a_reason_is_said_again_at_growing_intervals(
    clock: Clock, trouble: Complaints, caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    for second in range(7200):
        clock.now = 1000.0 + second
        trouble.say("redis is down")
        if caplog.messages:
            said.append(second)
            caplog.clear()
    assert said[:5] == [0, 30, 90, 210, 450]
    gaps = [later - earlier for earlier, later in pairwise(said)]
    assert gaps == sorted(gaps) and gaps[-1] == 1800


def test_each_reason_counts_for_itself(clock: Clock, trouble: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        for reason in ("redis is down", "postgres is down"):
            clock.now += 0.1
            trouble.say(reason)
    assert caplog.messages == ["it waits: redis is down", "it waits: postgres is down"]


def test_what_is_over_is_said_and_is_news_when_it_comes_back(
    clock: Clock, trouble: Complaints, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.end()
    trouble.say("down")
    trouble.end()
    trouble.end()
    trouble.say("down")
    assert caplog.messages == ["it waits: down", "it waits: no longer", "it waits: down"]


def test_reasons_that_are_never_the_same_do_not_fill_memory(clock: Clock, trouble: Complaints) -> None:
    for number in range(1000):
        trouble.say(f"reason {number}")
    assert len(trouble._said) <= 50
