"""When the client tries again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentmemory import Retries

seconds = st.floats(min_value=0, max_value=1e4)


@given(st.integers(min_value=1, max_value=10_000), seconds)
def test_a_pause_grows_up_to_its_limit(failures: int, elapsed: float) -> None:
    retries = Retries(budget=1e6, first=0.1, longest=2.0)
    pause = retries.pause(failures, elapsed)
    full = min(2.0, 0.1 * 2.0 ** min(failures - 1, 30))
    assert pause is not None
    assert full / 2 <= pause <= full


@given(seconds, seconds)
def test_the_sidecars_own_wish_is_the_least_pause(elapsed: float, asked: float) -> None:
    pause = Retries(budget=1e6).pause(1, elapsed, asked)
    assert pause is not None
    assert pause >= asked


@given(st.integers(min_value=1, max_value=100), seconds, st.none() | seconds, seconds)
def test_no_try_begins_after_the_budget(failures: int, elapsed: float, asked: float | None, budget: float) -> None:
    pause = Retries(budget=budget).pause(failures, elapsed, asked)
    assert pause is None or elapsed + pause < budget


def test_without_a_budget_there_is_one_try() -> None:
    assert Retries(budget=0.0).pause(1, 0.0) is None
