"""Embedding after the fact, and recall as an exhaustive scan would rank it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.embedding import EmbeddingUnavailable, Unembeddable, Vector, from_floats
from agentmemory_engine.errors import InvalidInput, RecallUnavailable
from agentmemory_engine.events import Filter
from agentmemory_engine.facts import NewFact
from agentmemory_engine.memory import Memory
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from support.memories import MakeMemory, admin_postgres, parts_of

DIMENSIONS = 8


class Oracle:
    """An embedder whose vectors follow from the text alone, and that fails where it is told to."""

    enabled = True
    model = "oracle"
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self.down = False
        self.crashes_on = ""
        self.refuses = ""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.down or (self.crashes_on and any(self.crashes_on in text for text in texts)):
            raise EmbeddingUnavailable("down")
        for index, text in enumerate(texts):
            if self.refuses and self.refuses in text:
                raise Unembeddable("no", index=index)
        return [from_floats(floats(text)) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        return (await self.embed([text]))[0]


def floats(text: str) -> list[float]:
    generator = random.Random(text)
    return [generator.gauss(0, 1) for _ in range(DIMENSIONS)]


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return float(product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5)


async def record(memory: Memory, agent: str, *contents: str, session: str | None = None) -> Any:
    body = {"events": [{"content": content} for content in contents]} | ({"session": session} if session else {})
    return await memory.record(agent, parse_turn(json.dumps(body).encode()))


async def found(memory: Memory, query: str, **more: Any) -> list[str | None]:
    return [hit.event.content for hit in (await memory.recall("a", RecallQuery(query=query, **more))).hits]


async def test_recall_ranks_as_an_exhaustive_scan_does(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Oracle()) as memory:
        texts = [f"text {number}" for number in range(60)]
        receipts = [
            await record(memory, "a", *texts[start : start + 6], session=f"s{start}") for start in range(0, 60, 6)
        ]
        await record(memory, "b", *(f"text {number} of another" for number in range(30)))
        await memory.wait([("a", receipt.position) for receipt in receipts], "searchable", 20)
        for query in ("one", "two", "three"):
            ranked = sorted(texts, key=lambda text: -cosine(floats(query), floats(text)))
            assert await found(memory, query, k=7) == ranked[:7]
            within = [text for text in ranked if text in texts[6:12]]
            assert await found(memory, query, k=4, filter=Filter(session="s6")) == within[:4]
        assert await found(memory, "one", filter=Filter(session="none")) == []


async def test_a_long_event_is_one_hit_however_many_vectors_it_has(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Oracle()) as memory:
        long = " ".join(f"word{number}" for number in range(6000))
        receipt = await record(memory, "a", long, "short one", "short two", "short three")
        await memory.wait([("a", receipt.position)], "searchable", 20)
        hits = await found(memory, "anything", k=4)
        assert sorted(str(hit)[:5] for hit in hits) == ["short", "short", "short", "word0"]


async def test_a_provider_that_is_down_costs_searchability_only(make_memory: MakeMemory) -> None:
    oracle = Oracle()
    oracle.down = True
    async with make_memory(embedder=oracle) as memory:
        receipt = await record(memory, "a", "kept")
        await memory.wait([("a", receipt.position)], "durable", 20)
        assert await memory.state("a", receipt.position) == "durable"
        with pytest.raises(RecallUnavailable):
            await found(memory, "kept", strategy="semantic")
        recalled = await memory.recall("a", RecallQuery(vector=floats("kept")))
        assert (recalled.hits, recalled.not_yet_searchable) == ([], 1)
        oracle.down = False
        await memory.wait([("a", receipt.position)], "searchable", 30)
        assert await found(memory, "kept") == ["kept"]
        assert (await memory.status()).unembeddable == 0


@pytest.mark.parametrize("way", ["crashes_on", "refuses"])
async def test_only_the_text_that_no_provider_takes_is_given_up(make_memory: MakeMemory, way: str) -> None:
    oracle = Oracle()
    setattr(oracle, way, "deadly")
    async with make_memory(embedder=oracle, work=False, max_delay=600.0) as memory:
        await memory.consolidator._ownership.renew(all_of_them=True)
        await memory.consolidator.round()
        receipt = await record(memory, "a", "fine", "deadly", "fine as well")
        await memory.consolidator.flush()
        for _ in range(10):
            try:
                await parts_of(memory).vectors.embed_batch()
            except EmbeddingUnavailable:
                continue
        status = await memory.status()
        assert (status.unembedded, status.unembeddable) == (0, 1)
        assert await memory.state("a", receipt.position) == "searchable"
        assert set(await found(memory, "anything")) == {"fine", "fine as well"}


@pytest.mark.parametrize(
    ("event", "waits"),
    [
        ('{"content": "  ", "payload": {"text": "words"}}', True),
        ('{"payload": {"text": "words", "n": 1e400}}', True),
        ('{"payload": {"n": 1e400}}', False),
        ('{"content": "  "}', False),
    ],
)
async def test_what_has_any_text_is_embedded(make_memory: MakeMemory, event: str, waits: bool) -> None:
    oracle = Oracle()
    oracle.down = True
    async with make_memory(embedder=oracle) as memory:
        receipt = await memory.record("a", parse_turn(f'{{"events": [{event}]}}'.encode()))
        await memory.wait([("a", receipt.position)], "durable", 20)
        status = await memory.status()
        assert (status.unembedded, status.dead_letters) == (int(waits), 0)


async def test_a_model_keeps_its_number(make_memory: MakeMemory, stores: LocalStores, settings: Settings) -> None:
    for _ in range(3):
        async with make_memory(embedder=Oracle(), work=False) as memory:
            assert await parts_of(memory).vectors.model() == 1
    connection = await admin_postgres(stores)
    last = await connection.fetchval(f'SELECT last_value FROM "{settings.keys.schema}".embedding_models_model_seq')
    await connection.close()
    assert last == 1


async def test_a_vector_of_the_callers_own_is_checked(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Oracle()) as memory:
        receipt = await record(memory, "a", "x")
        await memory.wait([("a", receipt.position)], "searchable", 20)
        hits = (await memory.recall("a", RecallQuery(vector=floats("x")))).hits
        assert hits[0].score == pytest.approx(1.0, abs=1e-3)
        for vector in ([1.0], [0.0] * DIMENSIONS, [float("nan")] * DIMENSIONS):
            with pytest.raises(InvalidInput):
                await memory.recall("a", RecallQuery(vector=vector))
        for query in (RecallQuery(), RecallQuery(query=" "), RecallQuery(query="x", vector=[1.0])):
            with pytest.raises(InvalidInput):
                await memory.recall("a", query)


async def test_without_a_provider_recall_says_so(memory: Memory) -> None:
    with pytest.raises(RecallUnavailable, match="provider"):
        await memory.recall("a", RecallQuery(query="x", strategy="semantic"))


async def test_a_fact_that_no_provider_takes_keeps_no_event_from_its_vector(make_memory: MakeMemory) -> None:
    oracle = Oracle()
    oracle.crashes_on = "poison"
    async with make_memory(embedder=oracle) as memory:
        await memory.knowledge.put("a", NewFact(topic="t", content="poison"))
        receipt = await record(memory, "a", "said meanwhile")
        await memory.wait([("a", receipt.position)], "searchable", 30)
