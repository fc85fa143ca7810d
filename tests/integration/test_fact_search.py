"""Search in knowledge: by meaning and by words, exact, and never in the way of a write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from agentmemory_engine.answers import FoundFacts
from agentmemory_engine.bm25 import count_terms, score_texts
from agentmemory_engine.embedding import EmbeddingUnavailable, Unembeddable, Vector, from_floats
from agentmemory_engine.errors import InvalidInput, RecallUnavailable
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import FactFilter, NewFact
from agentmemory_engine.fusion import scale, weigh
from agentmemory_engine.memory import Memory
from support.memories import MakeMemory, in_every_mode, parts_of

MEANINGS = ("cost price money", "rain weather snow", "city paris berlin", "person alice bob")


class Meanings:
    """Embeds a text by how many of its words belong to each meaning; fails where it is told to."""

    enabled = True
    model = "meanings"
    dimensions = len(MEANINGS) + 1

    def __init__(self) -> None:
        self.down = False
        self.refuses = ""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.down:
            raise EmbeddingUnavailable("down")
        for index, text in enumerate(texts):
            if self.refuses and self.refuses in text:
                raise Unembeddable("no", index=index)
        return [from_floats(floats(text)) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        return (await self.embed([text]))[0]


def floats(text: str) -> list[float]:
    words = text.lower().replace(":", " ").split()
    return [sum(word in meaning.split() for word in words) for meaning in MEANINGS] + [0.1]


def cosine(one: str, other: str) -> float:
    a, b = floats(one), floats(other)
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return float(product / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)


async def tell(memory: Memory, *told: str, topic: str = "t", agent: str = "a", **more: Any) -> None:
    for content in told:
        await memory.knowledge.put(agent, NewFact(topic=topic, content=content, **more))


async def search(memory: Memory, query: str, *, agent: str = "a", **more: Any) -> FoundFacts:
    filters = {name: more.pop(name) for name in list(more) if name in FactFilter.__dataclass_fields__}
    return await memory.knowledge.search(agent, FactQuery(query=query, filter=FactFilter(**filters), **more))


async def found(memory: Memory, query: str, **more: Any) -> list[str]:
    return [hit.fact.content for hit in (await search(memory, query, **more)).hits]


async def embedded(memory: Memory) -> None:
    async with asyncio.timeout(30):
        while (await memory.status()).unembedded:
            await asyncio.sleep(0.01)


async def test_a_fact_is_found_by_a_word_at_once_and_by_its_meaning_once_embedded(make_memory: MakeMemory) -> None:
    embedder = Meanings()
    embedder.down = True
    async with make_memory(embedder=embedder) as memory:
        await tell(memory, "acme charges a high price", "it will snow")
        answer = await search(memory, "acme")
        assert [hit.fact.content for hit in answer.hits] == ["acme charges a high price"]
        assert answer.degraded == ["semantic"]
        with pytest.raises(RecallUnavailable):
            await search(memory, "acme", strategy="semantic")
        assert (await memory.status()).unembedded == 2
        embedder.down = False
        await embedded(memory)
        answer = await search(memory, "weather")
        assert (answer.degraded, answer.not_yet_embedded) == ([], 0)
        assert [hit.fact.content for hit in answer.hits] == ["it will snow", "acme charges a high price"]
        assert set(answer.hits[0].scores) == {"semantic", "keyword"}


async def test_what_has_no_vector_yet_is_found_by_its_words_beside_what_has_one(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Meanings(), work=False) as memory:
        await tell(memory, "snow is cold")
        await parts_of(memory).vectors.embed_batch()
        await tell(memory, "rain is wet")
        answer = await search(memory, "rain")
        assert answer.not_yet_embedded == 1
        assert {hit.fact.content: set(hit.scores) for hit in answer.hits} == {
            "snow is cold": {"semantic", "keyword"},
            "rain is wet": {"keyword"},
        }
        assert await found(memory, "rain", strategy="semantic") == ["snow is cold"]


@in_every_mode
async def test_the_ranking_is_that_of_an_exhaustive_scan(make_memory: MakeMemory) -> None:
    told = [f"{a} {b} {n}" for n, (a, b) in enumerate((a, b) for a in MEANINGS for b in MEANINGS)]
    async with make_memory(embedder=Meanings()) as memory:
        await tell(memory, *told)
        await tell(memory, *(f"price of another agent {n}" for n in range(5)), agent="b")
        await embedded(memory)
        query = "price in paris 3 7"
        words = score_texts(count_terms(query), [count_terms(f"t {text}") for text in told])
        meaning = {text: cosine(query, f"t: {text}") for text in told}
        both = {text: (meaning[text], word) for text, word in zip(told, words, strict=True)}
        for strategy, expected in (
            ("semantic", meaning),
            ("hybrid", {text: scale(weigh(*parts)) for text, parts in both.items()}),
            ("keyword", {text: word for text, (_, word) in both.items() if word}),
        ):
            hits = (await search(memory, query, strategy=strategy, k=16)).hits
            assert {hit.fact.content: hit.score for hit in hits} == pytest.approx(expected, abs=2e-3)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            best = await search(memory, query, strategy=strategy, k=3)
            assert best.hits == hits[:3]


@in_every_mode
async def test_a_filter_chooses_and_changes_no_score(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Meanings()) as memory:
        for number in range(12):
            metadata = {"even": Raw(json.dumps(number % 2 == 0).encode())}
            topic = f"t{number % 3}"
            new = NewFact(
                topic=topic, content=f"price {number} rain", confidence=number / 12, metadata=metadata, key=f"k{number}"
            )
            await memory.knowledge.put("a", new)
        await embedded(memory)
        everything = (await search(memory, "price 4", k=100)).hits
        for filters, wanted in (
            ({"topics": ["t1"]}, {1, 4, 7, 10}),
            ({"metadata": b'{"even": true}'}, {0, 2, 4, 6, 8, 10}),
            ({"min_confidence": 0.5}, {6, 7, 8, 9, 10, 11}),
            ({"key": "k3"}, {3}),
            ({"topics": ["t0"], "metadata": b'{"even": false}'}, {3, 9}),
            ({"topics": ["none"]}, set()),
        ):
            hits = (await search(memory, "price 4", k=100, **filters)).hits
            assert hits == [hit for hit in everything if int(hit.fact.content.split()[1]) in wanted]
            assert len(hits) == len(wanted)
        least = everything[0].score
        assert least > everything[1].score
        assert (await search(memory, "price 4", k=100, min_score=least)).hits == everything[:1]


@in_every_mode
async def test_what_was_believed_then_is_searched(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Meanings()) as memory:
        first, _ = await memory.knowledge.put("a", NewFact(topic="t", content="alice lives in berlin", key="home"))
        second, _ = await memory.knowledge.put("a", NewFact(topic="t", content="alice lives in paris", key="home"))
        await embedded(memory)
        assert await found(memory, "where is alice") == ["alice lives in paris"]
        assert await found(memory, "where is alice", at=first.believed_from) == ["alice lives in berlin"]
        assert await found(memory, "berlin", strategy="keyword") == []
        await memory.knowledge.end("a", second.id)
        assert await found(memory, "where is alice") == []
        await memory.knowledge.erase("a", second.id)
        assert await found(memory, "where is alice", at=first.believed_from) == []


@in_every_mode
async def test_without_a_provider_words_alone_count(memory: Memory) -> None:
    await tell(memory, "acme charges a high price", "it will snow", key=None)
    answer = await search(memory, "the price of acme")
    assert [hit.fact.content for hit in answer.hits] == ["acme charges a high price"]
    assert answer.degraded == [] and answer.hits[0].scores == {"keyword": answer.hits[0].score}
    assert (await search(memory, "acme", strategy="keyword")).degraded == []
    assert await found(memory, "nothing of the kind") == []
    with pytest.raises(RecallUnavailable, match="provider"):
        await search(memory, "acme", strategy="semantic")
    with pytest.raises(InvalidInput):
        await search(memory, " ")
    assert (await memory.status()).unembedded == 0


async def test_a_fact_that_no_provider_takes_is_found_by_its_words(make_memory: MakeMemory) -> None:
    embedder = Meanings()
    embedder.refuses = "deadly"
    async with make_memory(embedder=embedder, work=False) as memory:
        await tell(memory, "price", "deadly", "snow")
        for _ in range(5):
            try:
                await parts_of(memory).vectors.embed_batch()
            except EmbeddingUnavailable:
                continue
        status = await memory.status()
        assert (status.unembedded, status.unembeddable) == (0, 1)
        assert set(await found(memory, "price")) == {"price", "snow"}
        assert (await search(memory, "deadly", strategy="keyword")).hits[0].fact.content == "deadly"


@in_every_mode
async def test_a_long_fact_has_the_score_of_its_nearest_part(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Meanings()) as memory:
        await tell(memory, "filler " * 600 + "snow")
        await embedded(memory)
        (hit,) = (await search(memory, "snow", strategy="semantic")).hits
        assert hit.score == pytest.approx(cosine("snow", "snow"), abs=2e-3)


async def test_the_words_of_many_facts_are_remembered_within_a_bound(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmemory_engine.fact_search._HELD_FACTS", 3)
    async with make_memory(work=False) as memory:
        for agent in ("a", "b", "a"):
            await tell(memory, *(f"price {n}" for n in range(70 if agent == "a" else 2)), agent=agent)
            assert len(await found(memory, "price", agent=agent, k=100)) >= 2
        held = parts_of(memory).knowledge._search._terms
        assert list(held) == ["a"]
        await tell(memory, "price 7 again")
        assert await found(memory, "again", strategy="keyword") == ["price 7 again"]
