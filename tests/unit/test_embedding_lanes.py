"""The order of work: queries first, small units, nothing that nobody waits for; and when a failed process restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.embedding.lanes import UNIT_CHARACTERS, UNIT_TEXTS, Lanes, Unit, fail, pack
from agentmemory_engine.embedding.restarts import LONGEST_PAUSE, Restarts


def unit(*texts: str) -> Unit:
    return Unit(texts, asyncio.get_running_loop().create_future())


@given(st.lists(st.text("ab ", max_size=400), max_size=60))
def test_packing_keeps_order_and_bounds(texts: list[str]) -> None:
    groups: list[Sequence[str]] = list(pack(texts))
    assert [text for group in groups for text in group] == texts
    for group in groups:
        assert 1 <= len(group) <= UNIT_TEXTS
        assert len(group) == 1 or sum(map(len, group)) <= UNIT_CHARACTERS


def test_packing_fills_units() -> None:
    assert [len(group) for group in pack(["short"] * 20)] == [8, 8, 4]


async def test_queries_go_first_and_each_lane_keeps_its_order() -> None:
    lanes = Lanes()
    one, two, asked, again = unit("1"), unit("2"), unit("?"), unit("??")
    lanes.put(one, query=False)
    lanes.put(two, query=False)
    lanes.put(asked, query=True)
    lanes.put(again, query=True)
    assert [await lanes.take() for _ in range(4)] == [asked, again, one, two]


async def test_a_unit_that_nobody_waits_for_is_left_out() -> None:
    lanes = Lanes()
    left, kept = unit("left"), unit("kept")
    lanes.put(left, query=False)
    lanes.put(kept, query=False)
    left.vectors.cancel()
    assert await lanes.take() is kept


async def test_taking_waits_for_work() -> None:
    lanes = Lanes()
    taking = asyncio.create_task(lanes.take())
    await asyncio.sleep(0)
    assert not taking.done()
    late = unit("late")
    lanes.put(late, query=False)
    assert await taking is late


async def test_failing_reaches_everyone_who_waits() -> None:
    lanes = Lanes()
    units = [unit("query"), unit("text"), unit("cancelled")]
    for number, one in enumerate(units):
        lanes.put(one, query=number == 0)
    units[2].vectors.cancel()
    lanes.fail(RuntimeError("down"))
    for one in units[:2]:
        with pytest.raises(RuntimeError, match="down"):
            await one.vectors
    fail(units[0], RuntimeError("a second failure changes nothing"))


def test_the_first_restart_is_at_once_and_pauses_grow_to_their_bound() -> None:
    restarts = Restarts()
    pauses = []
    for _ in range(12):
        restarts.failed(now=1000.0)
        pauses.append(restarts.wait(now=1000.0))
    assert pauses[:5] == [0, 0.5, 1, 2, 4]
    assert pauses[-1] == LONGEST_PAUSE
    assert restarts.wait(now=1000.0 + LONGEST_PAUSE) == 0


def test_what_worked_is_trusted_again() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.failed(now=0.0)
    restarts.worked()
    restarts.failed(now=10.0)
    assert restarts.wait(now=10.0) == 0
