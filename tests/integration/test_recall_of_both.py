"""Events and facts in one ranking: the scores of both are made alike, and a filter holds for both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw

from agentmemory.client import AgentMemory
from agentmemory.models import FoundFact, Hit
from agentmemory_engine.answers import Fact, FactHit
from agentmemory_engine.answers import Hit as EventHit
from agentmemory_engine.both import Source
from agentmemory_engine.embedding import EmbeddingUnavailable, Vector, from_floats
from agentmemory_engine.errors import RecallUnavailable
from agentmemory_engine.events import Filter
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import NewFact
from agentmemory_engine.fusion import KEYWORD, SEMANTIC, TIME, scale, weigh
from agentmemory_engine.memory import Memory
from agentmemory_engine.recall import RecallQuery, Recency
from agentmemory_engine.turns import parse_turn
from agentmemory_sidecar.config import Config
from support.memories import MakeMemory
from support.sidecars import LettersEmbedder, Running

BOTH: tuple[Source, ...] = ("events", "knowledge")
Found = list[tuple[str, str | None]]


class Counting(LettersEmbedder):
    """Counts queries, and is down when told so."""

    def __init__(self) -> None:
        self.queries = 0
        self.down = False

    async def embed(self, texts: Any) -> list[Vector]:
        return [from_floats([text.lower().count(chr(97 + n)) + 0.01 for n in range(26)]) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        self.queries += 1
        if self.down:
            raise EmbeddingUnavailable("down")
        return (await self.embed([text]))[0]


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
async def memory(make_memory: MakeMemory, embedder: Counting) -> AsyncIterator[Memory]:
    async with make_memory(embedder=embedder) as memory:
        yield memory


async def record(memory: Memory, content: str, **more: Any) -> None:
    turn = {key: more.pop(key) for key in ("session",) if key in more}
    body = {"events": [{"content": content, **more}], **turn}
    receipt = await memory.record("a", parse_turn(json.dumps(body).encode()))
    await memory.wait([("a", receipt.position)], "searchable", 10.0)


async def believe(memory: Memory, content: str, **more: Any) -> Fact:
    if "metadata" in more:
        more["metadata"] = {name: Raw(json.dumps(value).encode()) for name, value in more["metadata"].items()}
    fact, _ = await memory.knowledge.put("a", NewFact(topic="x", content=content, **more))
    async with asyncio.timeout(30):
        while (await memory.knowledge.search("a", FactQuery(query=content))).not_yet_embedded:
            await asyncio.sleep(0.01)
    return fact


async def look(memory: Memory, include: tuple[Source, ...] = BOTH, **query: Any) -> Found:
    hits = (await memory.recall_of("a", RecallQuery(**query), include)).hits
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [("event", hit.event.content) if isinstance(hit, EventHit) else ("fact", hit.fact.content) for hit in hits]


async def test_the_best_come_first_whichever_they_are(memory: Memory, embedder: Counting) -> None:
    await record(memory, "the pump runs hot")
    await record(memory, "zzz zzz")
    await believe(memory, "the pump is of brass")
    await believe(memory, "qqq qqq")
    before = embedder.queries
    found = await look(memory, query="pump brass", k=2)
    assert found == [("fact", "the pump is of brass"), ("event", "the pump runs hot")]
    assert embedder.queries == before + 1
    assert (await look(memory, query="pump hot", k=1)) == [("event", "the pump runs hot")]
    assert await look(memory, ("knowledge",), query="pump hot", k=1) == [("fact", "the pump is of brass")]
    assert [kind for kind, _ in await look(memory, ("events",), query="pump", k=9)] == ["event", "event"]


@pytest.mark.parametrize("strategy", ["hybrid", "semantic", "keyword"])
async def test_a_fact_that_says_what_an_event_says_scores_what_it_scores(memory: Memory, strategy: Any) -> None:
    await record(memory, "pump brass")
    await record(memory, "kettle")
    fact = await believe(memory, "pump brass")
    await believe(memory, "kettle")
    query = RecallQuery(query="pump brass", strategy=strategy, k=2)
    one, other = (await memory.recall_of("a", query, BOTH)).hits
    fact_hit, event = (one, other) if isinstance(one, FactHit) else (other, one)
    assert isinstance(fact_hit, FactHit) and isinstance(event, EventHit) and fact_hit.fact.id == fact.id
    assert fact_hit.scores.keys() == event.scores.keys()
    if strategy == "semantic":
        assert fact_hit.score == pytest.approx(event.score, abs=0.06)
    if strategy == "hybrid":
        likeness = fact_hit.scores["semantic"], fact_hit.scores["keyword"]
        assert fact_hit.score == pytest.approx(scale(weigh(*likeness)), abs=1e-6)
        likeness = event.scores["semantic"], event.scores["keyword"]
        assert event.score == pytest.approx(scale(weigh(*likeness)), abs=1e-3)


async def test_a_named_time_counts_for_events_and_weighs_for_facts_alike(memory: Memory) -> None:
    now = datetime(2026, 3, 20, 12, tzinfo=UTC)
    await record(memory, "the pump failed", at="2026-03-10T10:00:00Z")
    await record(memory, "the pump failed", at="2026-03-19T10:00:00Z")
    await believe(memory, "the pump failed")
    query = RecallQuery(query="the pump failed yesterday", k=3, now=now)
    hits = (await memory.recall_of("a", query, BOTH)).hits
    assert isinstance(hits[0], EventHit) and hits[0].event.at.day == 19
    (fact,) = (hit for hit in hits if isinstance(hit, FactHit))
    worth = weigh(fact.scores["semantic"], fact.scores["keyword"])
    assert fact.score == pytest.approx(scale(worth, SEMANTIC + KEYWORD + TIME), abs=1e-6) and "time" not in fact.scores


async def test_recency_counts_from_when_it_was_believed(memory: Memory) -> None:
    old = (datetime.now(UTC) - timedelta(days=70)).isoformat()
    await record(memory, "pump brass", at=old)
    fact = await believe(memory, "pump brass")
    query = RecallQuery(query="pump brass", recency=Recency(half_life=7 * 86_400.0, weight=0.5))
    first, second = (await memory.recall_of("a", query, BOTH)).hits
    assert isinstance(first, FactHit) and first.fact.id == fact.id
    assert first.scores["recency"] == pytest.approx(1.0, abs=0.01)
    assert second.scores["recency"] == pytest.approx(0.5**10, abs=0.001)


async def test_a_filter_never_widens(memory: Memory) -> None:
    await record(memory, "pump event", session="s", metadata={"task": "q2"})
    await believe(memory, "pump with", metadata={"task": "q2", "n": 1})
    await believe(memory, "pump without")
    passing: list[tuple[Filter, set[str]]] = [
        (Filter(metadata=b'{"task": "q2"}'), {"pump event", "pump with"}),
        (Filter(metadata=b'{"n": 1}'), {"pump with"}),
        (Filter(types=["message"]), {"pump event"}),
        (Filter(types=["decision"]), set()),
        (Filter(session="s"), {"pump event"}),
        (Filter(session="none"), set()),
        (Filter(role="user"), set()),
        (Filter(since=datetime.now(UTC) + timedelta(hours=1)), set()),
        (Filter(until=datetime.now(UTC) - timedelta(hours=1)), set()),
        (Filter(since=datetime.now(UTC) - timedelta(hours=1)), {"pump event", "pump with", "pump without"}),
    ]
    for conditions, expected in passing:
        assert {content for _, content in await look(memory, query="pump", filter=conditions, k=9)} == expected


async def test_what_repeats_is_put_back_and_what_scores_little_left_out(memory: Memory) -> None:
    await record(memory, "pump brass")
    await believe(memory, "pump brass")
    await believe(memory, "pump steel")
    found = await look(memory, query="pump brass", diversity=0.8, k=2)
    assert {content for _, content in found} == {"pump brass", "pump steel"}
    assert await look(memory, query="pump brass", min_score=0.99, strategy="keyword") == []


async def test_a_vector_finds_both_and_a_provider_that_is_down_is_said(memory: Memory, embedder: Counting) -> None:
    await record(memory, "pump")
    await believe(memory, "pump")
    vector = [float("pump".count(chr(97 + n))) + 0.01 for n in range(26)]
    assert {kind for kind, _ in await look(memory, vector=vector)} == {"event", "fact"}
    embedder.down = True
    for include in (BOTH, ("knowledge",)):
        answer = await memory.recall_of("a", RecallQuery(query="pump"), include)
        assert answer.degraded == ["semantic"] and len(answer.hits) == len(include)
    with pytest.raises(RecallUnavailable):
        await memory.recall_of("a", RecallQuery(query="pump", strategy="semantic"), BOTH)


async def test_over_http(config: Config) -> None:
    async with Running(config) as sidecar:
        await sidecar.wait_until_ready()
        await sidecar.turn("a", "the pump runs hot")
        async with AgentMemory(sidecar.url) as client:
            agent = client.agent("a")
            await agent.knowledge.put("pumps", "the pump is of brass")
            found = await agent.recall("pump", include=["events", "knowledge"])
            assert {type(hit) for hit in found.hits} == {Hit, FoundFact}
            assert [hit.content for hit in found.events] == ["the pump runs hot"]
            assert [(hit.kind, hit.topic) for hit in found.facts] == [("fact", "pumps")]
            assert [hit.kind for hit in (await agent.recall("pump")).hits] == ["event"]
        for wrong in ([], ["facts"], ["events", "knowledge", "events"], "events"):
            refused = await sidecar.send("POST", "/v1/agents/a/recall", {"query": "pump", "include": wrong})
            assert (refused.status, refused.code) == (422, "invalid-request")
