"""The provider OpenAI behind a whole memory: searchable as soon as it answers, and nothing lost while it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from agentmemory_engine.embedding.openai import OpenAIEmbedder
from agentmemory_engine.endpoint import Patience
from agentmemory_sidecar.config import Config
from support.sidecars import Running
from support.stub_embeddings import StubEmbeddings, failing

QUICK = Patience(one=5.0, first=0.001, longest=0.002, rest=0.01)


@pytest.fixture
async def stub() -> AsyncIterator[StubEmbeddings]:
    async with StubEmbeddings(dimensions=26).serve() as server:
        yield server


def embedder(stub: StubEmbeddings) -> OpenAIEmbedder:
    return OpenAIEmbedder(model="m", dimensions=26, base_url=stub.url, key=lambda: "sk-secret", patience=QUICK)


async def test_what_is_embedded_there_is_recalled(config: Config, stub: StubEmbeddings) -> None:
    async with Running(config, embedder=embedder(stub)) as sidecar:
        await sidecar.wait_until_ready()
        long = "zebra " * 600
        receipt = await sidecar.turn("a", "apple banana", long, "cherry")
        await sidecar.wait("a", receipt["position"], until="searchable")
        found = (await sidecar.send("POST", "/v1/agents/a/recall", {"query": "zebra " * 99, "k": 1})).json()
        assert [hit["content"] for hit in found["hits"]] == [long]
        assert max(len(text) for texts in stub.inputs() for text in texts) <= 1000


async def test_while_it_fails_events_are_durable_and_a_recall_says_why(config: Config, stub: StubEmbeddings) -> None:
    stub.always = failing(503)
    async with Running(config, embedder=embedder(stub)) as sidecar:
        await sidecar.wait_until_ready()
        receipt = await sidecar.turn("a", "apple")
        await sidecar.wait("a", receipt["position"])
        refused = await sidecar.send("POST", "/v1/agents/a/recall", {"query": "apple", "strategy": "semantic"})
        assert (refused.status, refused.code) == (503, "recall-unavailable")
        assert "status 503" in refused.json()["detail"] and b"sk-secret" not in refused.body
        stub.always = None
        await sidecar.wait("a", receipt["position"], until="searchable")


async def test_only_the_text_that_it_refuses_is_given_up(config: Config, stub: StubEmbeddings) -> None:
    stub.always = lambda asked: web.Response(status=400) if "poison" in str(asked["input"]) else None
    async with Running(config, embedder=embedder(stub)) as sidecar:
        await sidecar.wait_until_ready()
        receipt = await sidecar.turn("a", "apple", "poison", "cherry")
        await sidecar.wait("a", receipt["position"], until="searchable")
        assert (await sidecar.send("GET", "/v1/consolidation")).json()["unembeddable"] == 1
        found = (
            await sidecar.send("POST", "/v1/agents/a/recall", {"query": "apple", "k": 9, "strategy": "semantic"})
        ).json()
        assert {hit["content"] for hit in found["hits"]} == {"apple", "cherry"}
        by_word = (await sidecar.send("POST", "/v1/agents/a/recall", {"query": "poison"})).json()
        assert (by_word["hits"][0]["content"], by_word["degraded"]) == ("poison", ["semantic"])
        refused = await sidecar.send("POST", "/v1/agents/a/recall", {"query": "poison", "strategy": "semantic"})
        assert (refused.status, refused.code) == (422, "invalid-request")
        assert b"sk-secret" not in (await sidecar.ops("/metrics")).body
