"""Latest: one question at a time, and an answer within bounds."""

from __future__ import annotations

import asyncio

import pytest

from agentmemory_sidecar.latest import Latest


async def test_many_who_ask_at_once_ask_once() -> None:
    asked, go_on = 0, asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return asked

    latest = Latest(ask, fresh=60.0, patience=60.0)
    askers = [asyncio.create_task(latest.get()) for _ in range(5)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*askers) == [1] * 5
    assert await latest.get() == 1


async def test_an_answer_that_is_not_fresh_is_asked_for_again() -> None:
    answers = iter("ab")

    async def ask() -> str:
        return next(answers)

    latest = Latest(ask, fresh=0.0)
    assert [await latest.get(), await latest.get()] == ["a", "b"]


async def test_an_answer_that_is_late_is_none_and_still_counts_when_it_comes() -> None:
    go_on = asyncio.Event()

    async def ask() -> str:
        await go_on.wait()
        return "late"

    latest = Latest(ask, fresh=60.0, patience=0.01)
    assert await latest.get() is None
    go_on.set()
    while (answer := await latest.get()) is None:
        await asyncio.sleep(0)
    assert answer == "late"


async def test_a_failure_is_raised_and_not_kept() -> None:
    answers = iter([ValueError("once")])

    async def ask() -> str:
        for error in answers:
            raise error
        return "well"

    latest = Latest(ask)
    with pytest.raises(ValueError, match="once"):
        await latest.get()
    assert await latest.get() == "well"


async def test_an_open_question_ends_with_it() -> None:
    cancelled = asyncio.Event()

    async def ask() -> bool:
        try:
            return await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    latest = Latest(ask, patience=0.0)
    assert await latest.get() is None
    await latest.close()
    assert cancelled.is_set()
