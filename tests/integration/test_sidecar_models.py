"""The models of embeddings at the API, as a rolling restart goes from one to another."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agentmemory.local.stores import LocalStores
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from support.memories import admin_postgres
from support.seeded import Seeded
from support.sidecars import Running

EVENTS = {"events": [{"content": f"text {number}"} for number in range(20)]}


def second(config: Config) -> Config:
    return replace(config, settings=replace(config.settings, instance="two"))


async def test_a_rolling_restart_goes_to_another_model(config: Config, stores: LocalStores, settings: Settings) -> None:
    async with Running(config, embedder=Seeded("one")) as old:
        await old.wait_until_ready()
        written = (await old.send("POST", "/v1/agents/a/turns", EVENTS)).json()
        barrier = {"positions": [{"agent": "a", "position": written["position"]}], "until": "searchable"}
        assert (await old.send("POST", "/v1/consolidation/barrier", barrier)).status == 200
        two = Seeded("two", 12)
        async with Running(second(config), embedder=two) as new:
            await until_complete(new)
            listed = (await new.send("GET", "/v1/embedding-models")).json()["models"]
            assert [(one["name"], one["current"], one["own"], one["kept"]) for one in listed] == [
                ("one", False, False, True), ("two", True, True, True),
            ]  # fmt: skip
            asked = {"query": "text", "k": 20, "strategy": "semantic"}
            for sidecar in (old, new):
                found = (await sidecar.send("POST", "/v1/agents/a/recall", asked)).json()
                assert (len(found["hits"]), found["degraded"], found["approximate"]) == (20, [], False)
            status = (await old.send("GET", "/v1/consolidation")).json()
            assert (status["embedding_model"], status["back_fill"]) == ("two", None)
            for path, code in (("1", "model-in-use"), ("9", "no-model"), ("x", "no-model"), ("99999", "no-model")):
                answer = await new.send("DELETE", f"/v1/embedding-models/{path}")
                assert (answer.status, answer.code) == (409 if code == "model-in-use" else 404, code)
            await old.sidecar.stop()
            await new.memory.models.beat()
            assert (await new.send("DELETE", "/v1/embedding-models/1")).json() == {"deleted": True}
            await new.memory.models.beat()
            assert [one["name"] for one in (await new.send("GET", "/v1/embedding-models")).json()["models"]] == ["two"]
    connection = await admin_postgres(stores)
    left = await connection.fetch(f'SELECT DISTINCT model FROM "{settings.keys.schema}".event_embeddings')
    await connection.close()
    assert [row["model"] for row in left] == [2]


async def test_the_status_tells_how_far_it_is(config: Config) -> None:
    async with Running(config, embedder=Seeded("one")) as old:
        await old.wait_until_ready()
        written = (await old.send("POST", "/v1/agents/a/turns", EVENTS)).json()
        barrier = {"positions": [{"agent": "a", "position": written["position"]}], "until": "searchable"}
        assert (await old.send("POST", "/v1/consolidation/barrier", barrier)).status == 200
    down = Seeded("two")
    down.down = True
    async with Running(second(config), embedder=down) as new:
        async with asyncio.timeout(20):
            while (status := (await new.send("GET", "/v1/consolidation")).json())["back_fill"] is None:
                await asyncio.sleep(0.01)
            while (status := (await new.send("GET", "/v1/consolidation")).json())["back_fill"]["total"] == 0:
                await asyncio.sleep(0.01)
        assert status["embedding_model"] == "one" and status["unembedded"] == 0
        assert status["back_fill"] == {"model": "two", "done": 0, "total": 20}
        asked = {"query": "text 3", "k": 1}
        found = (await new.send("POST", "/v1/agents/a/recall", asked)).json()
        assert [hit["content"] for hit in found["hits"]] == ["text 3"] and found["degraded"] == ["semantic"]
        assert found["not_yet_searchable"] == 20


async def until_complete(sidecar: Running) -> None:
    async with asyncio.timeout(20):
        while (await sidecar.send("GET", "/v1/consolidation")).json()["embedding_model"] != "two":
            await asyncio.sleep(0.01)
