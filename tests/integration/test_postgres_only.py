"""Mode Postgres: what is its own. What all modes promise is tested in every mode, where it is tested."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import Receipt
from agentmemory_engine.errors import (
    DocumentExpired,
    ForeignStore,
    InvalidInput,
    KeyReused,
    NoDocument,
    NotInThisMode,
    PositionLost,
    StoreUnavailable,
    VersionConflict,
)
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.export import SessionLine
from agentmemory_engine.facts import NewFact
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.postgres_only.keys import KeyKeeper
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from support.memories import MakeMemory, admin_postgres, retention_of
from support.sidecars import LettersEmbedder, open_sidecar

pytestmark = pytest.mark.parametrize("mode", ["Postgres"], indirect=True)


async def execute(stores: LocalStores, settings: Settings, sql: str, *args: Any) -> list[Any]:
    connection = await admin_postgres(stores)
    try:
        return await connection.fetch(sql.replace("{schema}", f'"{settings.keys.schema}"'), *args)
    finally:
        await connection.close()


async def write(memory: Memory, *contents: str, agent: str = "a", key: str | None = None, **more: Any) -> Receipt:
    body = {"events": [{"type": "message", "content": content} for content in contents], **more}
    return await memory.record(agent, parse_turn(json.dumps(body).encode()), key=key)


async def contents(memory: Memory, agent: str = "a") -> list[str | None]:
    return [event.content for event in (await memory.timeline(agent, TimelineQuery(limit=1000))).events]


async def forget(stores: LocalStores, settings: Settings) -> None:
    """Let the window of every idempotency key end, and the keys go."""
    await execute(stores, settings, "UPDATE {schema}.turn_keys SET known_until = now() - interval '1 second'")


def postgres_of(memory: Memory) -> Postgres:
    store = memory.parts.stores["postgres"]
    assert isinstance(store, Postgres)
    return store


async def test_a_turn_is_durable_when_it_is_acknowledged(memory: Memory) -> None:
    receipt = await write(memory, "one", working_memory={"set": {"v": 1}}, session="s")
    assert await memory.state("a", receipt.position) == "searchable", "without embeddings, all that is durable is"
    await memory.wait([("a", receipt.position)], "durable", 0.0)
    assert (await memory.read_snapshot("a", receipt.position)).body == b'{"v": 1}'
    assert [event.content for event in (await memory.recent("a")).events] == ["one"]
    status = await memory.status()
    assert (status.mode, status.lag, status.pending, status.persistence) == ("Postgres", 0.0, 0, "write-ahead log")
    assert await memory.check() == {}


async def test_what_was_never_accepted_is_lost_and_not_waited_for(memory: Memory) -> None:
    receipt = await write(memory, "one")
    beyond = Position(receipt.position.shard, receipt.position.entry.next())
    for agent, position in (("a", beyond), ("b", receipt.position)):
        assert await memory.state(agent, position) == "lost"
        with pytest.raises(PositionLost):
            await memory.wait([(agent, position)], "durable", 5.0)


async def test_who_writes_at_once_gets_positions_in_order_and_nothing_is_doubled(make_memory: MakeMemory) -> None:
    async with make_memory() as first, make_memory(instance="two") as second:
        turns = [
            write(memory, f"{number}", key=f"key-{number}", working_memory={"merge": {f"n{number}": number}})
            for number in range(30)
            for memory in (first, second)
        ]
        receipts = await asyncio.gather(*turns)
        assert len({receipt.position for receipt in receipts}) == 30
        assert sum(receipt.repeated for receipt in receipts) == 30
        assert sorted(map(int, filter(None, await contents(first)))) == list(range(30))
        assert len(json.loads((await second.read_document("a")).body)) == 30


async def test_a_repetition_is_known_by_its_events_when_its_key_is_forgotten(
    memory: Memory, stores: LocalStores, settings: Settings
) -> None:
    sent = await write(memory, "one", "two", key="same")
    await forget(stores, settings)
    again = await write(memory, "one", "two", key="same")
    assert (again.position, again.events, again.repeated) == (sent.position, sent.events, True)
    with pytest.raises(KeyReused):
        await write(memory, "another", key="same")
    assert await contents(memory) == ["one", "two"]


async def test_a_change_without_events_is_known_by_its_document_when_its_key_is_forgotten(
    memory: Memory, stores: LocalStores, settings: Settings
) -> None:
    sent = await write(memory, key="same", working_memory={"set": {"v": 1}})
    await forget(stores, settings)
    again = await write(memory, key="same", working_memory={"set": {"v": 1}})
    assert (again.position, again.repeated) == (sent.position, True)
    with pytest.raises(KeyReused):
        await write(memory, key="same", working_memory={"set": {"v": 2}})
    assert (await memory.read_document("a")).body == b'{"v": 1}'


async def test_a_refused_turn_leaves_nothing(memory: Memory, stores: LocalStores, settings: Settings) -> None:
    await write(memory, "one", working_memory={"set": {"v": 1}})
    with pytest.raises(InvalidInput, match="nothing of it was stored"):
        body = '{"events": [{"content": "good"}, {"content": "bad", "metadata": {"n": 1e200000}}], "session": "s"}'
        await memory.record("a", parse_turn(body.encode()), key="refused")
    with pytest.raises(VersionConflict):
        body = '{"events": [{"content": "late"}], "working_memory": {"set": {"v": 2}}}'
        await memory.record("a", parse_turn(body.encode()), if_match="absent")
    assert await contents(memory) == ["one"]
    assert (await memory.read_document("a")).body == b'{"v": 1}'
    assert [row["n"] for row in await execute(stores, settings, "SELECT count(*) AS n FROM {schema}.turn_keys")] == [1]
    after = await write(memory, "two", key="refused")
    assert (after.position.entry, after.repeated) == (Entry(1, 2), False)


async def test_a_document_expires_and_is_restored_on_request(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory() as memory:
        written = await write(memory, "one", working_memory={"set": {"v": 1}})
        await execute(stores, settings, "UPDATE {schema}.agent_states SET lease_until = now() - interval '1 second'")
        with pytest.raises(DocumentExpired) as caught:
            await memory.read_document("a")
        assert caught.value.version == str(written.version)
        assert (await write(memory, "two")).version is None, "what has expired is not revived by a turn"
        woken = await memory.hydrate("a", HydrateQuery())
        assert (woken.working_memory, woken.cold_start) == (None, "expired")
        woken = await memory.hydrate("a", HydrateQuery(restore=True))
        assert woken.working_memory == b'{"v": 1}'
        assert (await memory.read_document("a")).body == b'{"v": 1}'


async def test_every_turn_renews_the_lease(memory: Memory, stores: LocalStores, settings: Settings) -> None:
    await write(memory, "one", working_memory={"set": {"v": 1}})
    await execute(stores, settings, "UPDATE {schema}.agent_states SET lease_until = now() + interval '5 seconds'")
    await write(memory, "two")
    [row] = await execute(stores, settings, "SELECT lease_until - now() AS left FROM {schema}.agent_states")
    assert timedelta(seconds=500) < row["left"] <= timedelta(seconds=settings.ttl)


async def test_a_server_that_went_back_is_told_by_its_timeline(
    memory: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that lagged is promoted: its timeline is the next one, and the last turns are not there."""
    kept = await write(memory, "kept", working_memory={"set": {"v": 1}})
    for number in range(8):
        await write(memory, working_memory={"set": {"v": number}})
    lost = await write(memory, "lost", agent="a")
    gone = await write(memory, "gone", agent="b")
    for statement in (
        "DELETE FROM {schema}.memory_events WHERE content IN ('lost', 'gone')",
        "UPDATE {schema}.agent_states SET sequence = sequence - 1",
        "DELETE FROM {schema}.agent_states WHERE sequence = 0",
    ):
        await execute(stores, settings, statement)
    postgres = postgres_of(memory)
    promoted = postgres.query("take_position").replace(
        "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int", "2"
    )
    monkeypatch.setitem(postgres._queries, "take_position", promoted)
    assert await memory.state("a", lost.position) == "lost"
    after = await write(memory, "after")
    assert after.position.entry == Entry(2, 1)
    assert (await write(memory, "after", agent="b")).position.entry == Entry(2, 1)
    for agent, position, state in (
        ("a", kept.position, "searchable"),
        ("a", Position(kept.position.shard, Entry(1, 3)), "searchable"),
        ("a", lost.position, "lost"),
        ("a", after.position, "searchable"),
        ("b", gone.position, "lost"),
    ):
        assert await memory.state(agent, position) == state, (agent, position)
    assert await contents(memory) == ["kept", "after"]


async def test_a_commit_whose_answer_was_lost_is_settled_by_the_same_key(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = postgres_of(memory)
    transaction = type(postgres).transaction

    def vanish(self: Postgres, **more: Any) -> Any:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def committed() -> AsyncIterator[Any]:
            async with transaction(self, **more) as session:
                yield session
            raise StoreUnavailable("postgres", "the answer is lost")

        return committed()

    with monkeypatch.context() as patch:
        patch.setattr(type(postgres), "transaction", vanish)
        with pytest.raises(StoreUnavailable):
            await write(memory, "one", key="same")
    assert (await write(memory, "one", key="same")).repeated
    assert await contents(memory) == ["one"]


async def test_an_erasure_is_done_when_it_is_answered(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory(embedder=LettersEmbedder()) as memory:
        sent = await write(memory, "one", "two", key="turn", session="s", working_memory={"set": {"v": 1}})
        await write(memory, "kept", agent="b")
        fact, _ = await memory.knowledge.put("a", NewFact(topic="t", content="a fact"))
        await memory.wait([("a", sent.position)], "searchable", 30.0)
        receipt = await memory.erase("a", key="forget", seconds=0.0)
        assert receipt.erased is not None and not receipt.repeated
        assert asdict(receipt.erased) == {
            "documents": 1, "messages": 0, "journalled": 0, "events": 2, "embeddings": 2, "snapshots": 1,
            "dead_letters": 0, "sessions": 1, "knowledge": 1,
        }  # fmt: skip
        assert await contents(memory) == []
        assert (await memory.recall("a", RecallQuery(query="one"))).hits == []
        assert (await memory.knowledge.page("a", KnowledgeQuery(history=True))).facts == []
        with pytest.raises(NoDocument):
            await memory.read_document("a")
        assert (await write(memory, "one", "two", key="turn", session="s", working_memory={"set": {"v": 1}})).repeated
        assert await contents(memory) == [], "a retry from before does not begin a new life"
        await write(memory, "a new life", session="s")
        again = await memory.erase("a", key="forget")
        assert (again.position, again.erased, again.repeated) == (receipt.position, receipt.erased, True)
        assert await contents(memory) == ["a new life"]
        assert await memory.state("a", sent.position) == "searchable"
        with pytest.raises(KeyReused):
            await memory.erase("a", key="turn")
        with pytest.raises(KeyReused):
            await write(memory, "another use of the key", key="forget")
        assert await contents(memory, "b") == ["kept"]
    assert fact.id is not None
    tables = await execute(
        stores, settings,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = $1 AND table_type = 'BASE TABLE'",
        settings.keys.schema,
    )  # fmt: skip
    assert {row["table_name"] for row in tables} >= {"agent_states", "turn_keys", "agent_openings"}


async def test_erasures_and_turns_at_once_leave_one_life(make_memory: MakeMemory) -> None:
    async with make_memory() as first, make_memory(instance="two") as second:
        for number in range(20):
            await write(first, f"before {number}")
        written = [write(memory, f"{number}") for number in range(15) for memory in (first, second)]
        erasures = [memory.erase("a", key=f"erase-{number % 2}") for number in range(4) for memory in (first, second)]
        receipts, done = await asyncio.gather(asyncio.gather(*written), asyncio.gather(*erasures))
        last = max(one.position for one in done)
        left = {event.position for event in (await first.timeline("a", TimelineQuery(limit=1000))).events}
        assert left == {receipt.position for receipt in receipts if receipt.position > last}


async def test_an_export_and_its_import(make_memory: MakeMemory) -> None:
    async with make_memory() as memory:
        written = await write(memory, "one", session="s", working_memory={"set": {"v": 1}})
        begun = await memory.exporter.begin("a")
        assert (begun.position, begun.document and begun.document.body) == (written.position, b'{"v": 1}')
        await write(memory, "later")
        lines = [line async for line in memory.exporter.lines(begun)]
        assert [getattr(line, "content", None) or getattr(line, "session", None) for line in lines] == ["s", "one"]
        session = next(line for line in lines if isinstance(line, SessionLine))
        assert (await memory.import_rows("b", [session], [])).sessions == 1
        assert (await memory.sessions.read("b", "s")).started_at == session.started_at


async def test_old_events_and_old_keys_go(make_memory: MakeMemory, stores: LocalStores, settings: Settings) -> None:
    async with make_memory(work=False, retention=60.0) as memory, make_memory(instance="two", retention=60.0) as other:
        old = await write(memory, "old", key="old", working_memory={"set": {"v": 1}})
        await write(memory, "new", key="new")
        await execute(
            stores, settings,
            "UPDATE {schema}.memory_events SET accepted_at = now() - interval '1 hour' WHERE content = 'old'",
        )  # fmt: skip
        await execute(
            stores, settings,
            "UPDATE {schema}.turn_keys SET known_until = now() - interval '1 second' WHERE sequence = 1",
        )  # fmt: skip
        swept = await asyncio.gather(retention_of(memory).sweep(), retention_of(other).sweep())
        assert sum(swept) <= 1
        assert await contents(memory) == ["new"]
        assert await memory.state("a", old.position) == "searchable"
        keeper = memory.parts.workers["keys"]
        assert isinstance(keeper, KeyKeeper)
        await keeper.sweep()
        rows = await execute(stores, settings, "SELECT sequence FROM {schema}.turn_keys")
        assert [row["sequence"] for row in rows] == [2]
        assert (await write(memory, "new", key="new")).repeated


async def test_without_postgres_it_says_so(memory: Memory, stores: LocalStores) -> None:
    await write(memory, "one", working_memory={"set": {"v": 1}})
    await stores.postgres.kill()
    try:
        with pytest.raises(StoreUnavailable):
            await write(memory, "two", key="same")
        for call in (
            memory.read_document("a"),
            memory.timeline("a", TimelineQuery()),
            memory.hydrate("a", HydrateQuery()),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        status = await memory.status()
        assert (status.degraded, status.pending, status.persistence) == (["postgres"], None, "Unknown")
        assert set(await memory.check()) == {"postgres"}
    finally:
        await stores.postgres.start()
    await write(memory, "two", key="same")
    assert await contents(memory) == ["one", "two"]


async def test_there_are_no_channels(stores: LocalStores, settings: Settings, tmp_path: Any, memory: Memory) -> None:
    with pytest.raises(NotInThisMode):
        _ = memory.channels
    async with open_sidecar(stores, settings, tmp_path) as sidecar:
        for method, path, body in (
            ("GET", "/v1/channels", None),
            ("GET", "/v1/channels/c/messages", None),
            ("POST", "/v1/channels/c/messages", {"from": "a", "payload": 1}),
        ):
            answer = await sidecar.send(method, path, body)
            assert (answer.status, answer.code) == (501, "not-in-this-mode")
        metrics = (await sidecar.ops("/metrics")).body.decode()
        assert 'agentmemory_store_up{store="postgres"} 1.0' in metrics
        assert 'store="redis"' not in metrics


async def test_a_memory_of_another_mode_is_refused(make_memory: MakeMemory, memory: Memory) -> None:
    await write(memory, "one")
    async with make_memory(mode="Hybrid", work=False) as other:
        with pytest.raises(ForeignStore, match="mode Postgres"):
            await other.identity()
