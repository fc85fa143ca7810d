"""Stores in trouble, seen from the engine: nothing is called dead, and work goes on when they are well again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.errors import ForeignStore, InvalidInput, JournalFull
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.redis import Credentials
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from support.memories import MakeMemory, admin_postgres, admin_redis, parts_of, with_postgres


async def record(memory: Memory, agent: str, content: str) -> Any:
    return await memory.record(agent, parse_turn(json.dumps({"events": [{"content": content}]}).encode()))


async def contents(memory: Memory, agent: str) -> list[str | None]:
    return [event.content for event in (await memory.timeline(agent, TimelineQuery(limit=1000))).events]


async def until_durable(memory: Memory, agent: str, receipt: Any) -> None:
    async with asyncio.timeout(30):
        while await memory.state(agent, receipt.position) == "pending":
            await asyncio.sleep(0.02)


async def test_a_full_redis_is_drained_after_a_reconnect(make_memory: MakeMemory, stores: LocalStores) -> None:
    async with make_memory(max_delay=600.0) as memory, admin_redis(stores) as client:
        receipt = await record(memory, "a", "kept")
        await client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(JournalFull):
                await record(memory, "a", "refused")
            parts_of(memory).redis.drop()
            memory.consolidator.hurry(memory.settings.shard_of("a"))
            await until_durable(memory, "a", receipt)
        finally:
            await client.config_set("maxmemory", "0")
        assert await contents(memory, "a") == ["kept"]


async def test_what_postgres_refuses_for_reasons_of_its_own_is_tried_again(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    schema = settings.keys.schema
    connection = await admin_postgres(stores)
    await connection.execute(
        f'CREATE FUNCTION "{schema}".corrupt() RETURNS trigger LANGUAGE plpgsql AS '
        "$$ BEGIN RAISE EXCEPTION 'invalid page' USING ERRCODE = 'XX001'; END $$;"
        f'CREATE TRIGGER corrupt BEFORE INSERT ON "{schema}".memory_events EXECUTE FUNCTION "{schema}".corrupt()'
    )
    failures = Failures()
    async with make_memory(observer=failures) as memory:
        receipt = await record(memory, "a", "kept")
        async with asyncio.timeout(30):
            while failures.count < 5:
                await asyncio.sleep(0.02)
        assert (await memory.status()).dead_letters == 0
        await connection.execute(f'DROP TRIGGER corrupt ON "{schema}".memory_events')
        await until_durable(memory, "a", receipt)
        assert await contents(memory, "a") == ["kept"]
    await connection.close()


class Failures:
    """Counts the rounds that failed."""

    def __init__(self) -> None:
        self.count = 0

    def failed(self, what: str) -> None:
        self.count += 1

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def test_a_postgres_that_was_read_only_is_used_again(
    make_memory: MakeMemory, stores: LocalStores, login: Credentials
) -> None:
    """Connections to a demoted primary are not kept."""
    connection = await admin_postgres(stores)
    await connection.execute(f'ALTER ROLE "{login.username}" SET default_transaction_read_only = on')
    failures = Failures()
    async with make_memory(observer=failures, work=False) as opened:
        assert opened is not None
    async with make_memory(observer=failures) as memory:
        async with asyncio.timeout(30):
            while failures.count < 3:
                await asyncio.sleep(0.02)
        await connection.execute(f'ALTER ROLE "{login.username}" RESET default_transaction_read_only')
        async with asyncio.timeout(30):
            while not all(shard.open for shard in (await memory.status()).shards):
                await asyncio.sleep(0.05)
        await until_durable(memory, "a", await record(memory, "a", "kept"))
    await connection.close()


@with_postgres
async def test_a_postgres_that_takes_no_writes_is_not_ready(
    make_memory: MakeMemory, stores: LocalStores, login: Credentials
) -> None:
    """What leads to a demoted primary is not kept, though nobody writes where nobody is ready."""
    connection = await admin_postgres(stores)
    await connection.execute(f'ALTER ROLE "{login.username}" SET default_transaction_read_only = on')
    async with make_memory(work=False) as memory:
        reason = (await memory.check()).get("postgres", "")
        assert "read-only" in reason
        await connection.execute(f'ALTER ROLE "{login.username}" RESET default_transaction_read_only')
        async with asyncio.timeout(30):
            while "postgres" in await memory.check():
                pass
    await connection.close()


async def test_a_row_that_a_lost_connection_still_locks_does_not_hold_up_the_others(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    orphan = await admin_postgres(stores)
    async with make_memory() as memory:
        await until_durable(memory, "a", await record(memory, "a", "first"))
        locked = settings.shard_of("a")
        other = next(agent for agent in "bcdefgh" if settings.shard_of(agent) != locked)
        transaction = orphan.transaction()
        await transaction.start()
        await orphan.execute(f'SELECT FROM "{settings.keys.schema}".shards WHERE shard = {locked} FOR UPDATE')
        await memory.consolidator._ownership.renew()
        assert locked not in memory.consolidator.owned
        await until_durable(memory, other, await record(memory, other, "goes on"))
        await transaction.rollback()
        memory.consolidator._ownership.stale = True
        await until_durable(memory, "a", await record(memory, "a", "second"))
    await orphan.close()


async def test_large_documents_are_snapshotted_a_few_at_a_time(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmemory_engine.journal._DOCUMENT_BYTES", 1500)
    async with make_memory(max_delay=600.0) as memory:
        sizes: list[int] = []
        write = memory.consolidator._writer.write

        async def count(owned: Any, batch: Any, documents: Any, *args: Any, **kwargs: Any) -> Any:
            sizes.append(sum(map(len, documents.values())))
            return await write(owned, batch, documents, *args, **kwargs)

        monkeypatch.setattr(memory.consolidator._writer, "write", count)
        for number in range(12):
            body = {"events": [{"content": "x"}], "working_memory": {"set": {"text": "y" * 1000}}}
            await memory.record(f"agent-{number}", parse_turn(json.dumps(body).encode()))
        await memory.consolidator.flush()
        assert max(sizes) < 3000 and len(sizes) >= 6
        assert (await memory.status()).pending == 0
        for number in range(12):
            assert await parts_of(memory).working.last_snapshot(f"agent-{number}") is not None


async def test_the_tail_of_many_agents_is_right_and_forgets_what_is_durable(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmemory_engine.tail._HELD_EVENTS", 10)
    async with make_memory(max_delay=600.0, shards=4) as memory:
        agents = [f"agent-{number}" for number in range(20)]
        for turn in range(3):
            for agent in agents:
                await record(memory, agent, f"{agent} {turn}")
            for agent in agents:
                assert await contents(memory, agent) == [f"{agent} {number}" for number in range(turn + 1)]
        await memory.consolidator.flush()
        await record(memory, agents[0], "last")
        assert [event.content for event in await parts_of(memory).tail.pending(agents[0])] == ["last"]
        followed = parts_of(memory).tail._shards[memory.settings.shard_of(agents[0])]
        assert sum(map(len, followed.agents.values())) == 1


async def test_a_sidecar_that_starts_without_postgres_serves_what_redis_holds(
    make_memory: MakeMemory, stores: LocalStores
) -> None:
    async with make_memory() as first:
        body = b'{"events": [{"content": "x"}], "working_memory": {"set": {"v": 1}}}'
        await until_durable(first, "a", await first.record("a", parse_turn(body)))
        await stores.postgres.stop()
        try:
            async with make_memory(instance="two") as second:
                assert (await second.read_document("a")).body == b'{"v": 1}'
                await record(second, "a", "accepted meanwhile")
                await stores.postgres.start()
                async with asyncio.timeout(30):
                    while (await second.status()).pending != 0:
                        await asyncio.sleep(0.05)
                assert await contents(second, "a") == ["x", "accepted meanwhile"]
                async with admin_redis(stores) as client:
                    await client.set(second.settings.keys.identity, "of another memory")
                with pytest.raises(ForeignStore):
                    await parts_of(second).redis.refresh()
        finally:
            await stores.postgres.start()


@pytest.mark.parametrize("conditions", [{"metadata": b'{"n": 1e999999}'}])
async def test_a_filter_that_postgres_cannot_compare_is_the_callers_mistake(
    memory: Memory, conditions: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await memory.timeline("a", TimelineQuery(filter=Filter(**conditions)))


@pytest.mark.parametrize("patch", ['"garbage"', '"[]"', "{}"])
async def test_a_patch_that_is_no_array_is_refused(memory: Memory, patch: str) -> None:
    with pytest.raises(InvalidInput, match="array"):
        await memory.record("a", parse_turn(f'{{"working_memory": {{"patch": {patch}}}}}'.encode()))
