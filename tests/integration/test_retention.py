"""Retention: events that are too old go, in small steps, with their vectors; everything else stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine import retention
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from agentmemory_sidecar.metrics import Metrics
from support.backups import flush
from support.memories import MakeMemory, admin_postgres, parts_of, retention_of
from support.sidecars import LettersEmbedder

DAY = 86_400.0


@pytest.fixture
async def quiet(make_memory: MakeMemory) -> AsyncIterator[Memory]:
    """A memory that keeps events for a day, and whose workers do nothing by themselves."""
    embedder = LettersEmbedder()
    async with make_memory(work=False, max_delay=600.0, retention=DAY, embedder=embedder) as memory:
        await flush(memory)
        yield memory


async def write(memory: Memory, content: str, agent: str = "a", more: str = "") -> Any:
    return await memory.record(
        agent, parse_turn(f'{{"session": "s", "events": [{{"content": "{content}"{more}}}]}}'.encode())
    )


async def contents(memory: Memory, agent: str = "a") -> list[str | None]:
    return [event.content for event in (await memory.timeline(agent, TimelineQuery(limit=1000))).events]


async def execute(stores: LocalStores, settings: Settings, sql: str, *args: Any) -> list[Any]:
    connection = await admin_postgres(stores)
    try:
        return await connection.fetch(sql.replace("{schema}", f'"{settings.keys.schema}"'), *args)
    finally:
        await connection.close()


async def age(stores: LocalStores, settings: Settings, *names: str) -> None:
    """Let these have been accepted two days ago."""
    await execute(
        stores, settings,
        "UPDATE {schema}.memory_events SET accepted_at = accepted_at - $2::interval WHERE content = ANY ($1)",
        names, timedelta(days=2),
    )  # fmt: skip


async def test_words_of_what_went_count_no_more(quiet: Memory, stores: LocalStores, settings: Settings) -> None:
    """The index that was made before is made anew: a word is as rare as in a memory that never had the old events."""
    for number in range(3):
        await write(quiet, f"old apples {number}")
    for agent in ("a", "b"):
        await write(quiet, "new apples", agent)
        await write(quiet, "new pears", agent)
    await flush(quiet)
    query = RecallQuery(query="pears", strategy="keyword")
    assert len((await quiet.recall("a", query)).hits) == 1
    await age(stores, settings, *(f"old apples {number}" for number in range(3)))
    assert await retention_of(quiet).sweep() == 3
    found = [(hit.event.content, hit.score) for hit in (await quiet.recall("a", query)).hits]
    assert found == [(hit.event.content, hit.score) for hit in (await quiet.recall("b", query)).hits]
    assert [content for content, _ in found] == ["new pears"]


async def test_what_is_too_old_goes_with_its_vectors_and_the_rest_stays(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    body = b'{"events": [{"content": "old"}], "working_memory": {"set": {"v": 1}}}'
    written = await quiet.record("a", parse_turn(body))
    await write(quiet, "long ago", more=', "at": "2001-01-01T00:00:00Z"')
    await write(quiet, "old too", "b")
    await flush(quiet)
    while await parts_of(quiet).vectors.embed_batch():
        pass
    await write(quiet, "old and not embedded", "c")
    await flush(quiet)
    await age(stores, settings, "old", "old too", "old and not embedded")
    await write(quiet, "pending")
    assert await retention_of(quiet).sweep() == 3
    assert await contents(quiet) == ["long ago", "pending"]
    assert [await contents(quiet, agent) for agent in "bc"] == [[], []]
    vectors = await execute(stores, settings, "SELECT agent_id FROM {schema}.event_embeddings")
    assert [row["agent_id"] for row in vectors] == ["a"]
    assert await execute(stores, settings, "SELECT id FROM {schema}.embedding_queue") == []
    sessions = await execute(stores, settings, "SELECT agent_id FROM {schema}.agent_sessions ORDER BY agent_id")
    assert [row["agent_id"] for row in sessions] == ["a", "b", "c"]
    assert (await quiet.read_document("a")).body == b'{"v": 1}'
    assert await quiet.state("a", written.position) == "searchable"
    revisions = await execute(stores, settings, "SELECT agent_id FROM {schema}.agent_revisions ORDER BY agent_id")
    assert [row["agent_id"] for row in revisions] == ["a", "b", "c"]
    assert await retention_of(quiet).sweep() == 0
    await flush(quiet)
    assert await contents(quiet) == ["long ago", "pending"]


async def test_many_agents_and_many_events_go_in_small_steps(
    quiet: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    monkeypatch.setattr(retention, "_AGENTS_A_PAGE", 3)
    for number in range(7):
        for event in range(number):
            await write(quiet, f"old {event}", f"agent-{number}")
        await write(quiet, "new", f"agent-{number}")
    await flush(quiet)
    await age(stores, settings, *(f"old {event}" for event in range(7)))
    assert await retention_of(quiet).sweep() == 21
    assert [await contents(quiet, f"agent-{number}") for number in range(7)] == [["new"]] * 7
    revisions = await execute(stores, settings, "SELECT revision FROM {schema}.agent_revisions ORDER BY agent_id")
    assert [row["revision"] for row in revisions] == [1, 1, 2, 2, 3, 3]


async def test_only_the_owner_of_a_shard_deletes(
    quiet: Memory, make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, "old")
    await flush(quiet)
    await age(stores, settings, "old")
    async with make_memory(work=False, instance="two", retention=DAY) as other:
        assert await retention_of(other).sweep() == 0
        await execute(stores, settings, "UPDATE {schema}.shards SET lease_until = '-infinity'")
        await other.consolidator._ownership.renew(all_of_them=True)
        assert await retention_of(quiet).sweep() == 0
        assert await contents(quiet) == ["old"]
        assert await retention_of(other).sweep() == 1


async def test_the_worker_deletes_by_itself_and_counts(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    metrics = Metrics()
    async with make_memory(retention=1.0, observer=metrics) as memory:
        receipt = await write(memory, "old")
        await memory.wait([("a", receipt.position)], "durable", 10)
        while await contents(memory):
            pass
        assert metrics.registry.get_sample_value("agentmemory_events_expired_total") == 1.0
        assert memory.ended_workers() == []


async def test_without_a_retention_nothing_goes(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory() as memory:
        receipt = await write(memory, "old")
        await memory.wait([("a", receipt.position)], "durable", 10)
        await age(stores, settings, "old")
        assert "retention" not in {task.get_name() for task in memory._tasks}
        assert await contents(memory) == ["old"]
