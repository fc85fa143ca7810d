"""Sessions and knowledge as clients see them: statuses, keys, pages, refusals; and the client against the sidecar."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from agentmemory import AgentMemory, KeyReused, NoFact, NoLongerBelieved, NoSession
from agentmemory.local.stores import LocalStores
from support.sidecars import Answer, Running

SESSIONS = "/v1/agents/a/sessions"
KNOWLEDGE = "/v1/agents/a/knowledge"
FACT = {"topic": "suppliers", "key": "acme.price", "content": "Acme asks 1.10", "confidence": 0.9}


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


@pytest.fixture
async def memory(sidecar: Running) -> AsyncIterator[AgentMemory]:
    async with AgentMemory(sidecar.url, client_name="tests") as memory:
        yield memory


async def test_a_session_from_start_to_end(sidecar: Running) -> None:
    started = await sidecar.send("POST", SESSIONS, raw=b'{"id": "day-1", "metadata": {"task": "q2", "n": 1.50}}')
    again = await sidecar.send("POST", SESSIONS, {"id": "day-1"})
    assert (started.status, again.status) == (201, 200) and again.json() == started.json()
    assert b'"n": 1.50' in started.body
    assert (started.json()["last_event_at"], started.json()["ended_at"]) == (None, None)
    nameless = await sidecar.send("POST", SESSIONS)
    assert nameless.status == 201 and "metadata" not in nameless.json()
    ended = await sidecar.send("PATCH", f"{SESSIONS}/day-1", {"ended": True, "metadata": {"task": None}})
    assert ended.json()["ended_at"] and ended.json()["metadata"] == {"n": 1.5}
    assert (await sidecar.send("PATCH", f"{SESSIONS}/day-1", {"ended": True})).json() == ended.json()
    assert (await sidecar.send("GET", f"{SESSIONS}/day-1")).json() == ended.json()
    for query, wanted in (
        ("", [nameless.json(), ended.json()]),
        ("?ended=true", [ended.json()]),
        ("?ended=false", [nameless.json()]),
        (f"?metadata={quote(json.dumps({'n': 1.5}))}", [ended.json()]),
    ):
        page = (await sidecar.send("GET", SESSIONS + query)).json()
        assert page == {"sessions": wanted, "cursor": None, "degraded": []}
    first = (await sidecar.send("GET", SESSIONS + "?limit=1")).json()
    second = (await sidecar.send("GET", f"{SESSIONS}?limit=1&cursor={first['cursor']}")).json()
    assert (first["sessions"], second["sessions"]) == ([nameless.json()], [ended.json()])
    assert (await sidecar.send("GET", "/v1/agents/b/sessions")).json()["sessions"] == []


@pytest.mark.parametrize("session", ["a/b", "ü ?#%2F%", "..", ".", "ends with/", "x" * 256])
async def test_any_text_names_a_session(sidecar: Running, memory: AgentMemory, session: str) -> None:
    await sidecar.turn("a", "hi", session=session)
    sessions = memory.agent("a").sessions
    assert (await sessions.get(session)).id == session
    assert (await sessions.end(session)).ended_at is not None
    assert [one.id async for one in sessions.list(ended=True)] == [session]


async def test_what_is_wrong_with_a_session_is_said(sidecar: Running) -> None:
    for answer in (
        await sidecar.send("GET", f"{SESSIONS}/none"),
        await sidecar.send("PATCH", f"{SESSIONS}/none", {"ended": True}),
    ):
        assert refused(answer) == (404, "no-session")
    wrong: list[Any] = [{"id": ""}, {"id": "x" * 257}, {"metadata": []}, {"unknown": 1}, {"id": 1}]
    for body in wrong:
        assert refused(await sidecar.send("POST", SESSIONS, body)) == (422, "invalid-request")
    assert refused(await sidecar.send("POST", SESSIONS, raw=b'{"id": "a\\u0000"}')) == (422, "unstorable-text")
    for path in ("?ended=maybe", "?metadata=[]", "?metadata=nonsense", "?limit=0", "?cursor=x", "?unknown=1"):
        assert refused(await sidecar.send("GET", SESSIONS + path)) == (422, "invalid-request")
    assert refused(await sidecar.send("GET", f"{SESSIONS}/a%00b")) == (422, "invalid-request")
    key = {"Idempotency-Key": "k"}
    assert (await sidecar.send("POST", SESSIONS, {"id": "s"}, headers=key)).status == 201
    assert (await sidecar.send("POST", SESSIONS, {"id": "s"}, headers=key)).status == 200
    other = await sidecar.send("POST", SESSIONS, {"id": "t"}, headers=key)
    assert refused(other) == (422, "idempotency-key-reused")
    assert refused(await sidecar.send("POST", "/v1/agents/-/sessions", {})) == (422, "invalid-agent-id")


async def test_a_fact_from_belief_to_erasure(sidecar: Running) -> None:
    source = str(uuid4())
    told = FACT | {"sources": [source], "metadata": {"currency": "EUR", "n": 1.5}}
    first = await sidecar.send("POST", KNOWLEDGE, raw=json.dumps(told).replace("1.5}", "1.50}").encode())
    assert first.status == 201 and b'"confidence":0.9' in first.body and b'"n": 1.50' in first.body
    fact = first.json()
    assert {name: fact[name] for name in told} == told
    assert (fact["origin"], fact["believed_until"]) == (fact["id"], None)
    again = await sidecar.send("POST", KNOWLEDGE, told)
    assert (again.status, again.json()) == (200, fact)
    second = (await sidecar.send("POST", KNOWLEDGE, told | {"content": "Acme asks 1.20"})).json()
    changed = await sidecar.send("PATCH", f"{KNOWLEDGE}/{second['id']}", {"confidence": 1, "metadata": None})
    assert changed.status == 201 and changed.json()["confidence"] == 1.0 and "metadata" not in changed.json()
    stale = await sidecar.send("PATCH", f"{KNOWLEDGE}/{second['id']}", {"confidence": 0})
    assert refused(stale) == (409, "no-longer-believed") and stale.json()["current"] == changed.json()["id"]
    assert refused(await sidecar.send("DELETE", f"{KNOWLEDGE}/{second['id']}")) == (409, "no-longer-believed")
    for query, wanted in (
        ("", [changed.json()["id"]]),
        ("?key=acme.price&history=true", [changed.json()["id"], second["id"], fact["id"]]),
        (f"?versions_of={fact['id']}", [changed.json()["id"], second["id"], fact["id"]]),
        (f"?key=acme.price&at={quote(fact['believed_from'])}", [fact["id"]]),
        ("?topic=suppliers&topic=other&min_confidence=1", [changed.json()["id"]]),
        ("?topic=other", []),
    ):
        page = (await sidecar.send("GET", KNOWLEDGE + query)).json()
        assert [one["id"] for one in page["facts"]] == wanted, query
    ended = await sidecar.send("DELETE", f"{KNOWLEDGE}/{changed.json()['id']}")
    assert ended.status == 200 and ended.json()["believed_until"]
    assert (await sidecar.send("DELETE", f"{KNOWLEDGE}/{ended.json()['id']}")).json() == ended.json()
    assert (await sidecar.send("GET", f"{KNOWLEDGE}/{fact['id']}")).status == 200
    erased = await sidecar.send("DELETE", f"{KNOWLEDGE}/{fact['id']}?erase=true")
    assert erased.json() == {"erased": 3}
    assert refused(await sidecar.send("GET", f"{KNOWLEDGE}/{fact['id']}")) == (404, "no-fact")


async def test_what_is_wrong_with_a_fact_is_said(sidecar: Running) -> None:
    wrong: list[Any] = [
        {}, {"topic": "t"}, {"topic": "", "content": "c"}, {"topic": "t", "content": " "}, FACT | {"confidence": 1.1},
        FACT | {"sources": ["no id"]}, FACT | {"metadata": []}, FACT | {"key": "k" * 257}, FACT | {"unknown": 1},
    ]  # fmt: skip
    for body in wrong:
        assert refused(await sidecar.send("POST", KNOWLEDGE, body)) == (422, "invalid-request"), body
    assert refused(await sidecar.send("POST", KNOWLEDGE, FACT | {"content": "\x00"})) == (422, "unstorable-text")
    for path in (
        "?at=yesterday",
        "?history=perhaps",
        "?versions_of=x",
        "?metadata=1",
        "?min_confidence=2",
        "?cursor=x",
    ):
        assert refused(await sidecar.send("GET", KNOWLEDGE + path)) == (422, "invalid-request"), path
    both = await sidecar.send("GET", KNOWLEDGE + "?history=true&at=2026-01-12T00:00:00Z")
    assert refused(both) == (422, "invalid-request")
    for method, change in (("GET", None), ("PATCH", {"content": "c"}), ("DELETE", None)):
        for identity in (str(uuid4()), "nonsense"):
            assert refused(await sidecar.send(method, f"{KNOWLEDGE}/{identity}", change)) == (404, "no-fact")
    for body in ({"query": " "}, {}, {"query": "x", "strategy": "other"}, {"query": "x", "k": 0}):
        assert refused(await sidecar.send("POST", KNOWLEDGE + "/search", body)) == (422, "invalid-request")
    semantic = await sidecar.send("POST", KNOWLEDGE + "/search", {"query": "x", "strategy": "semantic"})
    assert refused(semantic) == (503, "recall-unavailable")
    assert (await sidecar.send("GET", KNOWLEDGE)).json() == {"facts": [], "cursor": None}


async def test_search_says_what_it_found_and_how(sidecar: Running) -> None:
    await sidecar.send("POST", KNOWLEDGE, FACT)
    await sidecar.send("POST", KNOWLEDGE, {"topic": "weather", "content": "It rains"})
    found = (await sidecar.send("POST", KNOWLEDGE + "/search", {"query": "what does acme ask?"})).json()
    (hit,) = found["hits"]
    assert (hit["kind"], hit["content"], found["degraded"]) == ("fact", "Acme asks 1.10", [])
    assert 0 < hit["score"] == hit["scores"]["keyword"] < 1 and found["not_yet_embedded"] == 0
    filters = {"topics": ["weather"], "min_confidence": 0.5, "metadata": None, "at": None}
    other = await sidecar.send("POST", KNOWLEDGE + "/search", {"query": "acme rains", "filter": filters})
    assert [hit["content"] for hit in other.json()["hits"]] == ["It rains"]


async def test_a_store_that_is_down_is_an_error_that_says_so(sidecar: Running, stores: LocalStores) -> None:
    fact = (await sidecar.send("POST", KNOWLEDGE, FACT)).json()
    await sidecar.send("POST", SESSIONS, {"id": "s"})
    await stores.postgres.stop()
    try:
        for method, path, body in (
            ("GET", SESSIONS, None), ("POST", SESSIONS, {}), ("GET", f"{SESSIONS}/s", None),
            ("PATCH", f"{SESSIONS}/s", {"ended": True}), ("GET", KNOWLEDGE, None), ("POST", KNOWLEDGE, FACT),
            ("GET", f"{KNOWLEDGE}/{fact['id']}", None), ("PATCH", f"{KNOWLEDGE}/{fact['id']}", {"content": "c"}),
            ("DELETE", f"{KNOWLEDGE}/{fact['id']}", None), ("POST", f"{KNOWLEDGE}/search", {"query": "acme"}),
        ):  # fmt: skip
            answer = await sidecar.send(method, path, body)
            assert refused(answer) == (503, "store-unavailable") and answer.json()["store"] == "postgres"
    finally:
        await stores.postgres.start()
    await sidecar.wait_until_ready()
    assert (await sidecar.send("GET", KNOWLEDGE)).json()["facts"] == [fact]


async def test_the_client_and_sessions(memory: AgentMemory) -> None:
    sessions = memory.agent("a").sessions
    started = await sessions.start("s", metadata={"task": "q2"}, idempotency_key="k")
    assert await sessions.start("s", metadata={"task": "q2"}, idempotency_key="k") == started
    with pytest.raises(KeyReused):
        await sessions.start("s", metadata={"task": "q3"}, idempotency_key="k")
    await sessions.start()
    assert (await sessions.describe("s", {"more": 1})).metadata == {"task": "q2", "more": 1}
    assert (await sessions.end("s")).ended_at is not None
    assert [one.id async for one in sessions.list(ended=True, metadata={"more": 1})] == ["s"]
    assert len([one async for one in sessions.list(page_size=1)]) == 2
    assert (await sessions.reopen("s")).ended_at is None
    assert (await sessions.describe("s", None)).metadata is None
    with pytest.raises(NoSession):
        await sessions.get("none")


async def test_the_client_and_knowledge(memory: AgentMemory) -> None:
    knowledge = memory.agent("a").knowledge
    more: dict[str, Any] = {"key": "k", "confidence": 0.5, "sources": [str(uuid4())], "metadata": {"n": 1}}
    first = await knowledge.put("t", "one", **more)
    assert await knowledge.get(first.id) == first and first.sources == more["sources"]
    second = await knowledge.put("t", "two", **more, idempotency_key="i")
    assert await knowledge.put("t", "two", **more, idempotency_key="i") == second
    third = await knowledge.change(second.id, content="three", metadata={"m": 2}, sources=[])
    assert (third.content, third.metadata, third.sources, third.confidence) == ("three", {"n": 1, "m": 2}, [], 0.5)
    assert (await knowledge.change(third.id, metadata=None)).metadata is None
    with pytest.raises(NoLongerBelieved) as refused:
        await knowledge.change(first.id, content="four")
    assert refused.value.current == (await knowledge.page(key="k")).facts[0].id
    assert [fact.content async for fact in knowledge.list(key="k", history=True, page_size=1)] == [
        "three", "three", "two", "one",
    ]  # fmt: skip
    assert [fact.content for fact in (await knowledge.page(at=second.believed_from, topics=["t"])).facts] == ["two"]
    assert len((await knowledge.page(versions_of=first.id, metadata={"n": 1}, min_confidence=0.5)).facts) == 3
    found = await knowledge.search("three", strategy="keyword", topics=["t"], min_confidence=0.1, min_score=0.01)
    assert [hit.content for hit in found.hits] == ["three"] and found.hits[0].score > 0
    assert (await knowledge.search("two", at=second.believed_from)).hits[0].id == second.id
    assert (await knowledge.end(refused.value.current or "")).believed_until is not None
    assert await knowledge.erase(first.id) == 4
    with pytest.raises(NoFact):
        await knowledge.get(first.id)
