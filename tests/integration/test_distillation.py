"""Distillation: facts from a session that has ended, each with its sources; once, whatever fails in between."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentmemory_engine.answers import Distillation, Fact
from agentmemory_engine.distillation import Bounds, OpenAIChat, Setup
from agentmemory_engine.distillation.worker import Distiller
from agentmemory_engine.endpoint import Patience
from agentmemory_engine.errors import DistillationOff, NoDistillation, NoSession, ProviderUnavailable
from agentmemory_engine.facts import NewFact
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.sessions import SessionChange
from agentmemory_engine.turns import parse_turn
from agentmemory_sidecar.config import Config
from support.memories import MakeMemory, parts_of, with_postgres
from support.sidecars import Running
from support.stub_chat import StubChat, failing, saying

QUICK = Patience(one=5.0, texts=5.0, first=0.001, longest=0.002, rest=0.0)
BOUNDS = Bounds(first=0.0)


@pytest.fixture
async def stub() -> AsyncIterator[StubChat]:
    async with StubChat().serve() as server:
        yield server


def chat_of(stub: StubChat, patience: Patience = QUICK) -> OpenAIChat:
    return OpenAIChat(stub.url, model="m-1", key=lambda: "sk-secret", patience=patience)


@pytest.fixture
async def memory(make_memory: MakeMemory, stub: StubChat) -> AsyncIterator[Memory]:
    """Works only when it is told to."""
    async with make_memory(work=False, chat=chat_of(stub), bounds=BOUNDS) as memory:
        yield memory


async def flush(memory: Memory) -> None:
    if memory.settings.mode == "Postgres":
        return
    await memory.consolidator._ownership.renew(all_of_them=True)
    await memory.consolidator.round()
    await memory.consolidator.flush()


async def record(memory: Memory, *contents: str, agent: str = "a", session: str = "day-1") -> list[Any]:
    body = {"session": session, "events": [{"content": content} for content in contents]}
    receipt = await memory.record(agent, parse_turn(json.dumps(body).encode()))
    await flush(memory)
    return receipt.events


async def end(memory: Memory, agent: str = "a", session: str = "day-1") -> None:
    await memory.sessions.change(agent, session, SessionChange(ended=True))


async def known(memory: Memory, agent: str = "a", *, history: bool = False) -> list[Fact]:
    return (await memory.knowledge.page(agent, KnowledgeQuery(history=history))).facts


async def waiting(memory: Memory) -> list[Distillation]:
    return (await memory.distillations.page())[0]


def worker(memory: Memory) -> Distiller:
    assert memory.parts.distiller is not None
    return memory.parts.distiller


@with_postgres
async def test_a_session_that_ends_leaves_facts_with_their_sources(memory: Memory, stub: StubChat) -> None:
    await flush(memory)
    apple, pear = await record(memory, "apple is red", "pear is green")
    await record(memory, "plum is blue", session="day-2")
    await end(memory)
    assert [(one.session, one.given_up) for one in await waiting(memory)] == [("day-1", False)]
    status = await memory.status()
    assert (status.undistilled, status.undistillable) == (1, 0)
    assert await worker(memory).distill_one()
    facts = {fact.content: fact for fact in await known(memory)}
    assert {content: fact.sources for content, fact in facts.items()} == {
        "apple is red": [apple],
        "pear is green": [pear],
    }
    fact = facts["apple is red"]
    assert json.loads(fact.metadata or b"") == {"distilled": {"session": "day-1", "model": "m-1"}}
    assert (fact.topic, fact.confidence) == ("things", 0.75) and (fact.key or "").endswith("/apple")
    assert await waiting(memory) == [] and not await worker(memory).distill_one()
    assert stub.keys == ["Bearer sk-secret"]


async def test_done_again_it_doubles_nothing_and_takes_back_what_is_not_said_any_more(
    memory: Memory, stub: StubChat
) -> None:
    await flush(memory)
    await record(memory, "apple is red", "pear is green")
    await memory.knowledge.put("a", NewFact(topic="t", content="told by hand", key="apple"))
    await end(memory)
    await worker(memory).distill_one()
    before = await known(memory, history=True)
    await end(memory)
    assert await waiting(memory) == []
    await memory.sessions.change("a", "day-1", SessionChange(ended=False))
    await end(memory)
    await worker(memory).distill_one()
    assert await known(memory, history=True) == before and len(before) == 3
    other = {"key": "Apple", "topic": "fruit", "content": "apple is yellow", "confidence": 1, "sources": ["e1"]}
    stub.faults = [saying(json.dumps({"facts": [other]}))]
    await memory.distillations.ask("a", "day-1")
    await worker(memory).distill_one()
    assert sorted(fact.content for fact in await known(memory)) == ["apple is yellow", "told by hand"]


async def test_nothing_is_asked_for_where_it_is_off(make_memory: MakeMemory) -> None:
    async with make_memory(work=False) as memory:
        await flush(memory)
        await record(memory, "apple is red")
        await end(memory)
        assert await waiting(memory) == []
        with pytest.raises(DistillationOff):
            await memory.distillations.ask("a", "day-1")


async def test_what_is_not_in_postgres_yet_is_waited_for(memory: Memory, stub: StubChat) -> None:
    await flush(memory)
    await record(memory, "apple is red")
    body = b'{"session": "day-1", "events": [{"content": "pear is green"}]}'
    await memory.record("a", parse_turn(body))
    await end(memory)
    assert await worker(memory).distill_one()
    assert stub.seen == [] and len(await waiting(memory)) == 1
    await flush(memory)
    async with asyncio.timeout(10):
        while not stub.seen:
            await worker(memory).distill_one()
    assert len(await known(memory)) == 2


GOOD = {"key": "apple", "topic": "t", "content": "c", "confidence": 1, "sources": ["e1"]}
NONSENSE: dict[str, tuple[Any, str]] = {
    "no-json": ("I would rather not say.", "not the JSON that was asked for"),
    "another-shape": ([1], "not the JSON that was asked for"),
    "a-source-that-was-not-told": ({"facts": [GOOD | {"sources": ["e1", "e9"]}]}, "1 sources"),
    "no-source": ({"facts": [GOOD, GOOD | {"key": "b", "sources": []}]}, "length"),
    "too-sure": ({"facts": [GOOD | {"confidence": 1.5}]}, "<= 1"),
    "a-blank-key": ({"facts": [GOOD | {"key": "--"}]}, "blank"),
    "one-key-twice": ({"facts": [GOOD, GOOD]}, "same key"),
    "unstorable": ({"facts": [GOOD | {"content": "\x00"}]}, "remove it"),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_an_answer_that_is_nonsense_is_refused_whole_and_given_up_at_last(
    memory: Memory, stub: StubChat, name: str
) -> None:
    answer, reason = NONSENSE[name]
    stub.always = saying(answer if isinstance(answer, str) else json.dumps(answer))
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    for attempts in (1, 2, 3):
        assert await worker(memory).distill_one()
        (one,) = await waiting(memory)
        assert (one.attempts, one.given_up) == (attempts, attempts == 3) and reason in (one.refused or "")
    assert not await worker(memory).distill_one()
    assert await known(memory) == []
    status = await memory.status()
    assert (status.undistilled, status.undistillable) == (0, 1)
    assert (await memory.distillations.page(given_up=False))[0] == []
    stub.always = None
    asked = await memory.distillations.ask("a", "day-1")
    assert (asked.attempts, asked.refused, asked.given_up) == (0, None, False)
    assert await worker(memory).distill_one()
    assert [fact.content for fact in await known(memory)] == ["apple is red"]


async def test_a_server_that_knows_no_schema_is_asked_in_words(memory: Memory, stub: StubChat) -> None:
    stub.always = lambda asked: failing(400)(asked) if "response_format" in asked else None
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    fenced = "Here you are:\n```json\n" + json.dumps({"facts": [GOOD]}) + "\n```\nAnything else?"
    stub.faults = [failing(400), failing(400), None, saying(fenced)]
    await worker(memory).distill_one()
    assert [fact.content for fact in await known(memory)] == ["c"]
    assert ["response_format" in one for one in stub.seen] == [True, True, False, False]


async def test_a_long_session_goes_in_parts_and_goes_on_where_it_ended(
    make_memory: MakeMemory, stub: StubChat, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bounds = Bounds(tokens=256, first=0.0)
    texts = [f"thing {number} is {'x' * 400}" for number in range(5)]
    async with make_memory(work=False, chat=chat_of(stub), bounds=bounds) as memory:
        await flush(memory)
        await record(memory, *texts, "huge is " + "y" * 5000)
        await end(memory)
        stub.faults = [None, failing(503), failing(503), failing(503)]
        with pytest.raises(ProviderUnavailable, match="status 503"):
            await worker(memory).distill_one()
        assert len(await known(memory)) == len(stub.told()[0]) < 5
        (one,) = await waiting(memory)
        assert (one.attempts, one.refused) == (0, None)
    first = stub.told()[0]
    stub.seen.clear()
    async with make_memory(work=False, chat=chat_of(stub), bounds=bounds, instance="two") as memory:
        assert await worker(memory).distill_one()
        told = [text for part in stub.told() for text in part]
        assert len(stub.told()) > 2 and first + told[:-1] == texts
        assert told[-1].startswith("huge is yyy") and 100 < len(told[-1]) < 1100
        facts = await known(memory)
        assert len(facts) == 6 and all(len(fact.sources) == 1 for fact in facts)
    assert "secret" not in caplog.text and "the_code" not in caplog.text and "thing" not in caplog.text


@pytest.mark.parametrize("fault", [failing(413), failing(400), saying("{", "length"), saying(None, refusal="no")])
async def test_what_it_cannot_do_at_once_is_asked_in_halves(memory: Memory, stub: StubChat, fault: Any) -> None:
    stub.always = lambda asked: fault(asked) if "bad" in str(asked["messages"][-1]) else None
    await flush(memory)
    await record(memory, "apple is red", "pear is green", "bad is bad")
    await end(memory)
    await worker(memory).distill_one()
    assert sorted(fact.content for fact in await known(memory)) == ["apple is red", "pear is green"]
    (one,) = await waiting(memory)
    assert (one.attempts, one.given_up) == (1, False) and one.refused


async def test_a_server_that_refuses_everything_is_no_fault_of_the_session(memory: Memory, stub: StubChat) -> None:
    stub.always = failing(404)
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    for _ in range(5):
        with pytest.raises(ProviderUnavailable, match=r"distillation\.model"):
            await worker(memory).distill_one()
    (one,) = await waiting(memory)
    assert (one.attempts, one.given_up) == (0, False)


async def test_a_pause_that_the_server_asks_for_is_kept(make_memory: MakeMemory, stub: StubChat) -> None:
    patience = Patience(one=5.0, texts=5.0, first=0.001, longest=0.002)
    async with make_memory(work=False, chat=chat_of(stub, patience), bounds=BOUNDS) as memory:
        await flush(memory)
        await record(memory, "apple is red")
        await end(memory)
        stub.always = failing(429, Retry_After="1000")
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await worker(memory).distill_one()
        assert len(stub.seen) == 1


async def test_what_takes_too_long_alone_counts_against_the_session(make_memory: MakeMemory, stub: StubChat) -> None:
    patience = Patience(one=0.2, texts=0.2, rest=0.0)
    async with make_memory(work=False, chat=chat_of(stub, patience), bounds=BOUNDS) as memory:
        await flush(memory)
        await record(memory, "apple is red")
        await end(memory)
        stub.open.clear()
        assert await worker(memory).distill_one()
        (one,) = await waiting(memory)
        assert one.attempts == 1 and "takes too long" in (one.refused or "")


@with_postgres
async def test_an_erasure_takes_what_is_on_its_way(memory: Memory, stub: StubChat) -> None:
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    stub.open.clear()
    distilling = asyncio.create_task(worker(memory).distill_one())
    await stub.asked.wait()
    erasing = asyncio.create_task(memory.erase("a", seconds=30))
    async with asyncio.timeout(10):
        while await waiting(memory):
            await asyncio.sleep(0.01)
    stub.open.set()
    await distilling
    await flush(memory)
    assert (await erasing).erased is not None
    assert await known(memory, history=True) == [] and await waiting(memory) == []


async def test_asked_for_anew_meanwhile_the_first_answer_is_dropped(memory: Memory, stub: StubChat) -> None:
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    stub.open.clear()
    stub.faults = [saying(json.dumps({"facts": [GOOD]}))]
    distilling = asyncio.create_task(worker(memory).distill_one())
    await stub.asked.wait()
    await memory.distillations.ask("a", "day-1")
    stub.open.set()
    await distilling
    assert await known(memory, history=True) == []
    await worker(memory).distill_one()
    assert [fact.content for fact in await known(memory, history=True)] == ["apple is red"]


async def test_what_was_drawn_from_events_that_are_gone_stays(memory: Memory, stub: StubChat) -> None:
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    await worker(memory).distill_one()
    await parts_of(memory).postgres.fetch("erase_events", "a", b"", 10**9, 0, None)
    await record(memory, "pear is green")
    await memory.distillations.ask("a", "day-1")
    await worker(memory).distill_one()
    assert sorted(fact.content for fact in await known(memory)) == ["apple is red", "pear is green"]


async def test_what_is_forgotten_is_not_distilled(memory: Memory) -> None:
    await flush(memory)
    await record(memory, "apple is red")
    await end(memory)
    await memory.distillations.forget("a", "day-1")
    assert not await worker(memory).distill_one()
    with pytest.raises(NoDistillation):
        await memory.distillations.forget("a", "day-1")
    with pytest.raises(NoSession):
        await memory.distillations.ask("a", "no such")


async def test_pages_of_what_waits(memory: Memory) -> None:
    await flush(memory)
    for number in range(5):
        await record(memory, "x", session=f"day-{number}")
        await end(memory, session=f"day-{number}")
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = await memory.distillations.page(limit=2, cursor=cursor)
        found += [one.session for one in page]
        if cursor is None:
            break
    assert found == [f"day-{number}" for number in range(5)]


async def test_over_http_a_session_that_ends_is_distilled_by_itself(config: Config, stub: StubChat) -> None:
    async with Running(config, distil=Setup(chat_of(stub))) as sidecar:
        await sidecar.wait_until_ready()
        await sidecar.turn("a", "apple is red", session="day-1")
        ended = await sidecar.send("PATCH", "/v1/agents/a/sessions/day-1", {"ended": True})
        assert ended.status == 200
        async with asyncio.timeout(30):
            while not (facts := (await sidecar.send("GET", "/v1/agents/a/knowledge")).json()["facts"]):
                await asyncio.sleep(0.02)
        assert facts[0]["metadata"] == {"distilled": {"session": "day-1", "model": "m-1"}}
        stub.always = failing(503)
        asked = await sidecar.send("POST", "/v1/agents/a/sessions/day-1/distillation")
        assert (asked.status, asked.json()["session"]) == (202, "day-1")
        listed = (await sidecar.send("GET", "/v1/distillations?given_up=false")).json()["distillations"]
        assert [one["session"] for one in listed] == ["day-1"]
        assert (await sidecar.send("DELETE", "/v1/agents/a/sessions/day-1/distillation")).json() == {"deleted": True}
        missing = await sidecar.send("DELETE", "/v1/agents/a/sessions/day-1/distillation")
        assert (missing.status, missing.code) == (404, "no-distillation")
        assert b"agentmemory_facts_distilled_total 1.0" in (await sidecar.ops("/metrics")).body


async def test_over_http_a_memory_without_a_model_says_so(sidecar: Running) -> None:
    await sidecar.turn("a", "apple is red", session="day-1")
    refused = await sidecar.send("POST", "/v1/agents/a/sessions/day-1/distillation")
    assert (refused.status, refused.code) == (409, "distillation-off")
