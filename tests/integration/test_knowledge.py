"""Knowledge: what is believed, what was believed when, and never two beliefs under one key."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from msgspec import Raw

from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import Fact
from agentmemory_engine.errors import FactEnded, InvalidInput, KeyReused, NoFact, StoreUnavailable
from agentmemory_engine.facts import FactChange, FactFilter, NewFact
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.memory import Memory
from support.memories import MakeMemory, admin_postgres, in_every_mode, parts_of

PRICE = "supplier.acme.price"
DECADE = timedelta(days=3650)


def members(**values: object) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in values.items()}


def price(content: str, **more: Any) -> NewFact:
    return NewFact(**{"topic": "suppliers", "content": content, "key": PRICE} | more)


async def facts(memory: Memory, *, history: bool = False, versions_of: Any = None, **filters: Any) -> list[Fact]:
    query = KnowledgeQuery(filter=FactFilter(**filters), history=history, versions_of=versions_of)
    return (await memory.knowledge.page("a", query)).facts


async def contents(memory: Memory, **query: Any) -> list[str]:
    return [fact.content for fact in await facts(memory, **query)]


@in_every_mode
async def test_a_fact_comes_back_as_it_was_told(memory: Memory) -> None:
    sources = [uuid4(), uuid4()]
    told = price("It costs 1.10", confidence=0.9, sources=sources, metadata=members(currency="EUR", n=1.5))
    fact, new = await memory.knowledge.put("a", told)
    assert new and await memory.knowledge.read("a", fact.id) == fact
    assert (fact.topic, fact.content, fact.key, fact.confidence) == ("suppliers", "It costs 1.10", PRICE, 0.9)
    assert (fact.sources, fact.believed_until) == (sources, None)
    assert json.loads(fact.metadata or b"") == {"currency": "EUR", "n": 1.5}
    with pytest.raises(NoFact):
        await memory.knowledge.read("b", fact.id)
    assert (await memory.knowledge.page("b", KnowledgeQuery())).facts == []


@in_every_mode
async def test_a_key_has_one_belief_and_a_history(memory: Memory) -> None:
    first, _ = await memory.knowledge.put("a", price("1.10"))
    second, new = await memory.knowledge.put("a", price("1.20"))
    other, _ = await memory.knowledge.put("a", NewFact(topic="weather", content="It rains"))
    ended = await memory.knowledge.read("a", first.id)
    assert new and ended.believed_until == second.believed_from > first.believed_from
    assert ended.content == "1.10" and second.origin == first.id
    assert await facts(memory) == [other, second]
    assert await facts(memory, key=PRICE) == [second]
    assert await facts(memory, key=PRICE, history=True) == [second, ended]
    assert await facts(memory, versions_of=second.id) == [second, ended] == await facts(memory, versions_of=first.id)
    moment = timedelta(microseconds=1)
    for at, believed in (
        (first.believed_from - moment, []),
        (first.believed_from, ["1.10"]),
        (second.believed_from - moment, ["1.10"]),
        (second.believed_from, ["1.20"]),
        (second.believed_from + DECADE, ["1.20"]),
    ):
        assert await contents(memory, key=PRICE, at=at) == believed
    with pytest.raises(InvalidInput):
        await facts(memory, history=True, at=first.believed_from)


@in_every_mode
async def test_the_same_again_changes_nothing_and_any_difference_is_a_version(memory: Memory) -> None:
    told = price("1.10", metadata=members(a=1))
    first, _ = await memory.knowledge.put("a", told)
    assert await memory.knowledge.put("a", told) == (first, False)
    assert await memory.knowledge.put("a", told, key="other key") == (first, False)
    for other in (
        price("1.10"),
        price("1.10", metadata=members(a=1), confidence=0.5),
        price("1.10", metadata=members(a=1), topic="other"),
        price("1.10", metadata=members(a=1), sources=[uuid4()]),
        told,
    ):
        version, new = await memory.knowledge.put("a", other)
        assert new and await facts(memory) == [version]
    assert len(await facts(memory, history=True)) == 6
    twins = [await memory.knowledge.put("a", NewFact(topic="t", content="no key")) for _ in range(2)]
    assert twins[0][1] and twins[1][1] and twins[0][0].id != twins[1][0].id


@in_every_mode
async def test_a_repeated_request_answers_what_the_first_one_made(memory: Memory) -> None:
    first, _ = await memory.knowledge.put("a", price("1.10"), key="k")
    second, _ = await memory.knowledge.put("a", price("1.20"))
    repeated, new = await memory.knowledge.put("a", price("1.10"), key="k")
    assert not new and repeated.id == first.id and repeated.believed_until is not None
    assert await facts(memory) == [second]
    with pytest.raises(KeyReused):
        await memory.knowledge.put("a", price("1.30"), key="k")
    change = FactChange(confidence=0.5)
    changed, new = await memory.knowledge.change("a", second.id, change, key="c")
    assert new and await memory.knowledge.change("a", second.id, change, key="c") == (changed, False)
    with pytest.raises(KeyReused):
        await memory.knowledge.change("a", second.id, FactChange(confidence=0.6), key="c")
    assert (await memory.knowledge.put("b", price("1.30"), key="k"))[1]


@in_every_mode
async def test_many_writers_of_one_key_leave_one_belief_and_a_history_without_gaps(make_memory: MakeMemory) -> None:
    async with AsyncExitStack() as stack:
        memories = [await stack.enter_async_context(make_memory(work=False)) for _ in range(3)]
        await memories[0].knowledge.put("a", price("0"))

        async def tell(number: int) -> None:
            memory = memories[number % 3]
            if number % 4:
                await memory.knowledge.put("a", price(str(number)))
            else:
                (current,) = await facts(memory, key=PRICE)
                try:
                    await memory.knowledge.change("a", current.id, FactChange(content=str(number)))
                except FactEnded as ended:
                    assert ended.current is not None
                    await memory.knowledge.put("a", price(str(number)))

        await asyncio.gather(*(tell(number) for number in range(1, 49)))
        versions = await facts(memories[0], key=PRICE, history=True)
        assert sorted(int(fact.content) for fact in versions) == list(range(49))
        assert [fact.believed_until for fact in versions] == [None, *(fact.believed_from for fact in versions[:-1])]
        assert len({fact.origin for fact in versions}) == 1


async def test_who_waits_for_another_writer_is_believed_from_its_own_turn_on(
    memory: Memory, make_memory: MakeMemory, stores: LocalStores
) -> None:
    await memory.knowledge.put("a", price("1.10"))
    administrator = await admin_postgres(stores)
    async with make_memory(work=False, instance="two") as other, parts_of(other).knowledge.alone("a"):
        waiting = asyncio.create_task(memory.knowledge.put("a", price("1.20")))
        async with asyncio.timeout(30):
            while not await administrator.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ):
                await asyncio.sleep(0.01)
        moment = await administrator.fetchval("SELECT clock_timestamp()")
    second, _ = await waiting
    await administrator.close()
    first = (await facts(memory, history=True))[1]
    assert first.believed_until == second.believed_from > moment


@in_every_mode
async def test_a_request_that_is_sent_many_times_at_once_is_one(make_memory: MakeMemory) -> None:
    async with make_memory(work=False) as one, make_memory(work=False) as other:
        told = NewFact(topic="t", content="no key")
        done = await asyncio.gather(*((one, other)[n % 2].knowledge.put("a", told, key="k") for n in range(12)))
        assert sum(new for _, new in done) == 1 and len({fact.id for fact, _ in done}) == 1
        assert len(await facts(one, history=True)) == 1


@in_every_mode
async def test_a_change_is_a_version_and_only_what_is_believed_changes(memory: Memory) -> None:
    first, _ = await memory.knowledge.put("a", NewFact(topic="t", content="c", metadata=members(a=1, b=2)))
    change = FactChange(content="d", confidence=0.5, metadata=members(a=None, c=3))
    second, new = await memory.knowledge.change("a", first.id, change)
    assert new and (second.topic, second.content, second.confidence) == ("t", "d", 0.5)
    assert json.loads(second.metadata or b"") == {"b": 2, "c": 3}
    assert (await memory.knowledge.read("a", first.id)).content == "c"
    assert await memory.knowledge.change("a", second.id, FactChange(content="d")) == (second, False)
    with pytest.raises(FactEnded) as refused:
        await memory.knowledge.change("a", first.id, FactChange(content="e"))
    assert refused.value.current == str(second.id)
    with pytest.raises(FactEnded):
        await memory.knowledge.end("a", first.id)
    bare, _ = await memory.knowledge.change("a", second.id, FactChange(metadata=None, sources=[first.id]))
    assert (bare.metadata, bare.sources) == (None, [first.id])
    assert [fact.id for fact in await facts(memory, versions_of=first.id)] == [bare.id, second.id, first.id]
    with pytest.raises(NoFact):
        await memory.knowledge.change("a", uuid4(), FactChange(content="e"))


@in_every_mode
async def test_a_belief_ends_and_its_history_stays(memory: Memory) -> None:
    first, _ = await memory.knowledge.put("a", price("1.10"))
    ended = await memory.knowledge.end("a", first.id)
    assert ended.believed_until is not None
    assert await memory.knowledge.end("a", first.id) == ended
    assert await facts(memory) == [] and await facts(memory, history=True) == [ended]
    with pytest.raises(FactEnded) as refused:
        await memory.knowledge.change("a", first.id, FactChange(content="x"))
    assert refused.value.current is None
    again, new = await memory.knowledge.put("a", price("1.10"))
    assert new and again.origin == again.id and again.believed_from >= ended.believed_until
    assert await memory.knowledge.end("a", first.id) == ended
    assert await facts(memory) == [again]


@in_every_mode
async def test_erasure_of_a_fact_takes_its_history_and_nothing_else(memory: Memory) -> None:
    first, _ = await memory.knowledge.put("a", price("1.10"))
    await memory.knowledge.end("a", first.id)
    await memory.knowledge.put("a", price("1.10"))
    last, _ = await memory.knowledge.put("a", price("1.20"))
    plain, _ = await memory.knowledge.put("a", NewFact(topic="t", content="c"))
    changed, _ = await memory.knowledge.change("a", plain.id, FactChange(content="d"))
    stranger, _ = await memory.knowledge.put("b", price("1.10"))
    assert await memory.knowledge.erase("a", last.id) == 3
    assert [fact.id for fact in await facts(memory, history=True)] == [changed.id, plain.id]
    assert await memory.knowledge.erase("a", plain.id) == 2
    assert await facts(memory, history=True) == []
    with pytest.raises(NoFact):
        await memory.knowledge.erase("a", plain.id)
    assert await memory.knowledge.read("b", stranger.id) == stranger


@in_every_mode
async def test_facts_are_found_by_what_they_are_about(memory: Memory) -> None:
    for number in range(4):
        await memory.knowledge.put(
            "a",
            NewFact(topic=f"t{number % 2}", content=str(number), confidence=number / 4, metadata=members(n=number % 2)),
        )
    await memory.knowledge.put("a", NewFact(topic="t0", content="bare"))
    assert await contents(memory, topics=["t1"]) == ["3", "1"]
    assert await contents(memory, topics=["t1", "t0"], min_confidence=0.5) == ["bare", "3", "2"]
    assert await contents(memory, metadata=b'{"n": 0}') == ["2", "0"]
    with pytest.raises(InvalidInput):
        await contents(memory, metadata=b"{")


@in_every_mode
async def test_pages_list_what_was_believed_when_the_first_one_was_read(memory: Memory) -> None:
    told = [(await memory.knowledge.put("a", price(str(n), key=f"k{n}")))[0] for n in range(9)]
    page = await memory.knowledge.page("a", KnowledgeQuery(limit=4))
    seen = [fact.id for fact in page.facts]
    await memory.knowledge.put("a", price("another"))
    await memory.knowledge.put("a", price("changed", key="k2"))
    await memory.knowledge.end("a", told[1].id)
    while page.cursor:
        page = await memory.knowledge.page("a", KnowledgeQuery(limit=4, cursor=page.cursor))
        seen += [fact.id for fact in page.facts]
    assert seen == [fact.id for fact in reversed(told)]
    page = await memory.knowledge.page("a", KnowledgeQuery(limit=3, history=True))
    seen = [fact.id for fact in page.facts]
    while page.cursor:
        page = await memory.knowledge.page("a", KnowledgeQuery(limit=3, history=True, cursor=page.cursor))
        seen += [fact.id for fact in page.facts]
    assert len(seen) == len(set(seen)) == 11
    with pytest.raises(InvalidInput):
        await memory.knowledge.page("a", KnowledgeQuery(cursor="nonsense"))


@in_every_mode
async def test_a_refused_fact_ends_no_belief(memory: Memory) -> None:
    first, _ = await memory.knowledge.put("a", price("1.10"))
    for refused in (price("1.20", metadata={"n": Raw(b"1e200000")}), price("  "), price("1.20", topic="\t")):
        with pytest.raises(InvalidInput):
            await memory.knowledge.put("a", refused)
    with pytest.raises(InvalidInput):
        await memory.knowledge.change("a", first.id, FactChange(metadata={"n": Raw(b"1e200000")}))
    assert await facts(memory, history=True) == [first]


async def test_without_postgres_it_says_so_and_without_redis_it_works(memory: Memory, stores: LocalStores) -> None:
    first, _ = await memory.knowledge.put("a", price("1.10"))
    await stores.valkey.stop()
    try:
        second, _ = await memory.knowledge.put("a", price("1.20"))
        assert await facts(memory) == [second]
    finally:
        await stores.valkey.start()
    await stores.postgres.stop()
    try:
        for call in (
            memory.knowledge.put("a", price("1.30")),
            memory.knowledge.change("a", first.id, FactChange(content="x")),
            memory.knowledge.end("a", first.id),
            memory.knowledge.erase("a", first.id),
            memory.knowledge.read("a", first.id),
            memory.knowledge.page("a", KnowledgeQuery()),
        ):
            with pytest.raises(StoreUnavailable, match="postgres"):
                await call
    finally:
        await stores.postgres.start()
