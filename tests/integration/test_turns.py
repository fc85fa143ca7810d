"""The turn's script: atomic, idempotent, by version."""

from __future__ import annotations

import asyncio
import json

import pytest

from agentmemory_engine.errors import (
    InvalidAgentId,
    InvalidInput,
    KeyReused,
    NoDocument,
    TooLarge,
    VersionConflict,
)
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.turns import Turn, parse_turn
from support.memories import MakeMemory, consolidate, in_every_mode

REDIS_KINDS = ["valkey", "cluster", "redis-7"]


def turn(text: str) -> Turn:
    return parse_turn(text.encode())


def said(content: str) -> Turn:
    return turn(json.dumps({"events": [{"role": "user", "content": content}]}))


async def contents(memory: Memory, agent: str) -> list[str | None]:
    page = await memory.timeline(agent, TimelineQuery())
    return [event.content for event in page.events]


@in_every_mode
async def test_a_turn_is_read_back_from_every_side_at_once(memory: Memory) -> None:
    receipt = await memory.record("a", turn('{"events": [{"content": "hi"}], "working_memory": {"set": {"n": 1.50}}}'))
    document = await memory.read_document("a")
    assert (document.body, document.version) == (b'{"n": 1.50}', receipt.position)
    assert [event.content for event in (await memory.recent("a")).events] == ["hi"]
    assert await contents(memory, "a") == ["hi"]


@in_every_mode
async def test_the_same_key_and_body_answers_the_first_receipt(memory: Memory) -> None:
    first = await memory.record("a", said("once"), key="k")
    again = await memory.record("a", said("once"), key="k")
    assert again.repeated and not first.repeated
    assert (again.position, again.events) == (first.position, first.events)
    assert await contents(memory, "a") == ["once"]


@in_every_mode
async def test_identical_turns_without_a_key_are_two_turns(memory: Memory) -> None:
    await memory.record("a", said("Roger."))
    await memory.record("a", said("Roger."))
    assert await contents(memory, "a") == ["Roger.", "Roger."]


@in_every_mode
async def test_the_same_key_with_another_body_is_refused_with_nothing_applied(memory: Memory) -> None:
    await memory.record("a", said("one"), key="k")
    with pytest.raises(KeyReused):
        await memory.record("a", turn('{"events": [{"content": "two"}], "working_memory": {"set": {}}}'), key="k")
    assert await contents(memory, "a") == ["one"]
    with pytest.raises(NoDocument):
        await memory.read_document("a")


@in_every_mode
async def test_a_key_belongs_to_its_agent(memory: Memory) -> None:
    await memory.record("a", said("one"), key="k")
    other = await memory.record("b", said("two"), key="k")
    assert not other.repeated


@in_every_mode
async def test_a_stale_version_is_refused_with_nothing_applied(memory: Memory) -> None:
    first = await memory.record("a", turn('{"working_memory": {"set": {"v": 1}}}'))
    second = await memory.record("a", turn('{"working_memory": {"set": {"v": 2}}}'), if_match=str(first.version))
    with pytest.raises(VersionConflict) as caught:
        change = turn('{"events": [{"content": "late"}], "working_memory": {"set": {"v": 3}}}')
        await memory.record("a", change, if_match=str(first.version))
    assert caught.value.current == str(second.version)
    assert (await memory.read_document("a")).body == b'{"v": 2}'
    assert await contents(memory, "a") == []


@in_every_mode
async def test_absent_means_that_there_is_no_document(memory: Memory) -> None:
    change = turn('{"working_memory": {"set": {}}}')
    await memory.record("a", change, if_match="absent")
    with pytest.raises(VersionConflict):
        await memory.record("a", change, if_match="absent")
    await memory.record("a", turn('{"working_memory": {"delete": true}}'))
    await memory.record("a", change, if_match="absent")


@in_every_mode
async def test_every_concurrent_merge_is_in_the_document(memory: Memory) -> None:
    changes = [turn(json.dumps({"working_memory": {"merge": {f"k{n}": n}}})) for n in range(20)]
    await asyncio.gather(*(memory.record("a", change) for change in changes))
    body = (await memory.read_document("a")).body
    assert json.loads(body) == {f"k{n}": n for n in range(20)}


@in_every_mode
async def test_a_patch_that_was_made_is_not_made_again_by_its_retry(memory: Memory) -> None:
    await memory.record("a", turn('{"working_memory": {"set": {"x": 1}}}'))
    removal = turn('{"working_memory": {"patch": [{"op": "remove", "path": "/x"}]}}')
    first = await memory.record("a", removal, key="k")
    await memory.record("a", turn('{"working_memory": {"merge": {"y": 2}}}'))
    again = await memory.record("a", removal, key="k")
    assert again.repeated and again.position == first.position
    assert (await memory.read_document("a")).body == b'{"y":2}'


@in_every_mode
async def test_a_patch_that_does_not_apply_is_refused(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="does not apply"):
        await memory.record("a", turn('{"working_memory": {"patch": [{"op": "remove", "path": "/x"}]}}'))


@in_every_mode
async def test_numbers_survive_a_merge_as_they_were_sent(memory: Memory) -> None:
    await memory.record("a", turn('{"working_memory": {"set": {"p": 1.10, "big": 123456789012345678901234567890}}}'))
    await memory.record("a", turn('{"working_memory": {"merge": {"q": 2.500}}}'))
    body = (await memory.read_document("a")).body
    assert body == b'{"p":1.10,"big":123456789012345678901234567890,"q":2.500}'


@in_every_mode
async def test_a_document_over_its_limit_is_refused(make_memory: MakeMemory) -> None:
    async with make_memory(max_document_size=20) as memory:
        with pytest.raises(TooLarge):
            await memory.record("a", turn('{"working_memory": {"set": {"text": "longer than twenty bytes"}}}'))


@in_every_mode
async def test_a_deleted_document_is_gone_and_can_begin_anew(memory: Memory) -> None:
    await memory.record("a", turn('{"working_memory": {"set": {"old": 1}}}'))
    await memory.record("a", turn('{"working_memory": {"delete": true}}'))
    with pytest.raises(NoDocument):
        await memory.read_document("a")
    await memory.record("a", turn('{"working_memory": {"merge": {"new": 1}}}'))
    assert (await memory.read_document("a")).body == b'{"new":1}'


@in_every_mode
@pytest.mark.parametrize("agent", ["", "x" * 129, "a/b", "a{b}", "a\nb", "ä", "-a", "a b"])
async def test_an_agent_id_that_breaks_the_rule_is_refused(memory: Memory, agent: str) -> None:
    with pytest.raises(InvalidAgentId):
        await memory.record(agent, said("x"))
    with pytest.raises(InvalidAgentId):
        await memory.timeline(agent, TimelineQuery())


@in_every_mode
async def test_the_timeline_pages_through_both_tiers_in_order(make_memory: MakeMemory) -> None:
    async with make_memory(max_delay=600.0) as memory:
        for number in range(10):
            await memory.record("a", said(f"{number}"))
        await consolidate(memory)
        for number in range(10, 15):
            await memory.record("a", said(f"{number}"))
        for order, expected in (("asc", range(15)), ("desc", range(14, -1, -1))):
            seen: list[str | None] = []
            cursor = None
            while True:
                page = await memory.timeline("a", TimelineQuery(order=order, limit=4, cursor=cursor))  # type: ignore[arg-type]
                seen += [event.content for event in page.events]
                cursor = page.cursor
                if cursor is None:
                    break
            assert seen == [str(number) for number in expected]


@in_every_mode
@pytest.mark.parametrize("flushed", [True, False])
async def test_filters_mean_the_same_in_both_tiers(make_memory: MakeMemory, flushed: bool) -> None:
    async with make_memory(max_delay=600.0) as memory:
        await memory.record(
            "a",
            turn(
                """{"session": "s1", "events": [
                {"content": "one", "at": "2026-01-01T00:00:00Z", "metadata": {"task": "q2", "tags": ["x", "y"]}},
                {"type": "tool_call", "payload": {"tool": "t"}, "at": "2026-01-02T00:00:00Z"},
                {"content": "two", "role": "user", "at": "2026-01-03T00:00:00Z"}]}"""
            ),
        )
        if flushed:
            await consolidate(memory)

        async def found(**conditions: object) -> list[int]:
            page = await memory.timeline("a", TimelineQuery(filter=Filter(**conditions)))  # type: ignore[arg-type]
            return [event.index for event in page.events]

        moments = [event.at for event in (await memory.timeline("a", TimelineQuery())).events]
        assert await found(types=["tool_call"]) == [1]
        assert await found(session="s1") == [0, 1, 2]
        assert await found(session="other") == []
        assert await found(role="user") == [2]
        assert await found(since=moments[1]) == [1, 2]
        assert await found(until=moments[1]) == [0]
        assert await found(metadata=b'{"task": "q2"}') == [0]
        assert await found(metadata=b'{"tags": ["y"]}') == [0]
        assert await found(metadata=b'{"task": "q3"}') == []


@in_every_mode
async def test_the_window_keeps_the_newest_messages(make_memory: MakeMemory) -> None:
    async with make_memory(recent_messages=3) as memory:
        for number in range(6):
            await memory.record("a", said(f"{number}"))
            await memory.record("a", turn('{"events": [{"type": "observation", "content": "aside"}]}'))
        page = await memory.recent("a")
        assert [event.content for event in page.events] == ["3", "4", "5"]
        timeline = await memory.timeline("a", TimelineQuery(filter=Filter(types=["message"]), limit=100))
        assert page.events == timeline.events[-3:]
