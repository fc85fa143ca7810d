"""Consolidation: once, in order, fenced; poison becomes dead letters; leases begin only after snapshots."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.consolidation import Consolidator
from agentmemory_engine.errors import DocumentExpired, InvalidInput, NoDeadLetter
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from support.memories import MakeMemory, admin_postgres, admin_redis, parts_of

REDIS_KINDS = ["valkey", "redis-8"]


def event(content: str, extra: str = "") -> str:
    return f'{{"content": "{content}"{extra}}}'


async def record(memory: Memory, agent: str, *events: str, key: str | None = None, document: str | None = None) -> Any:
    change = f', "working_memory": {{"set": {document}}}' if document else ""
    return await memory.record(agent, parse_turn(f'{{"events": [{",".join(events)}]{change}}}'.encode()), key=key)


async def rows(stores: LocalStores, settings: Settings, sql: str) -> list[Any]:
    connection = await admin_postgres(stores)
    try:
        return await connection.fetch(sql.replace("{schema}", f'"{settings.keys.schema}"'))
    finally:
        await connection.close()


POISON = ', "metadata": {"number": 1e200000}'


@pytest.mark.parametrize("places", [[0], [4], [2, 3], [0, 1, 2, 3, 4]])
async def test_poison_anywhere_in_a_batch_becomes_dead_letters_and_nothing_else_does(
    make_memory: MakeMemory, places: list[int]
) -> None:
    async with make_memory(max_delay=600.0) as memory:
        for number in range(5):
            await record(memory, "a", event(f"{number}", POISON if number in places else ""))
        await memory.consolidator.flush()
        stored = [event.content for event in (await memory.timeline("a", TimelineQuery())).events]
        assert stored == [f"{number}" for number in range(5) if number not in places]
        letters = await memory.dead_letters.list()
        assert [letter.position.entry.sequence for letter in letters] == places
        assert {letter.sqlstate for letter in letters} == {"22003"}
        assert (await memory.status()).pending == 0


async def test_a_dead_letter_is_replayed_once_what_was_wrong_is_mended(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory() as memory:
        receipt = await record(memory, "a", event("bad", POISON))
        await memory.wait([("a", receipt.position)], "durable", 10)
        [letter] = await memory.dead_letters.list()
        with pytest.raises(InvalidInput, match="stays a dead letter"):
            await memory.dead_letters.replay("a", letter.id)
        mended = letter.raw.replace(b"1e200000", b"1")
        connection = await admin_postgres(stores)
        await connection.execute(f'UPDATE "{settings.keys.schema}".dead_letters SET raw = $1', mended)
        await connection.close()
        await memory.dead_letters.replay("a", letter.id)
        page = await memory.timeline("a", TimelineQuery())
        assert [(one.content, one.position) for one in page.events] == [("bad", receipt.position)]
        with pytest.raises(NoDeadLetter):
            await memory.dead_letters.replay("a", letter.id)


async def test_a_retry_after_its_key_was_forgotten_is_not_doubled(make_memory: MakeMemory) -> None:
    async with make_memory(idempotency_window=0.001) as memory:
        first = await record(memory, "a", event("once"), key="k")
        await memory.wait([("a", first.position)], "durable", 10)
        again = await record(memory, "a", event("once"), key="k")
        assert not again.repeated
        await memory.wait([("a", again.position)], "durable", 10)
        assert [one.content for one in (await memory.timeline("a", TimelineQuery())).events] == ["once"]
        assert again.events == first.events


async def test_an_old_key_with_another_body_goes_to_the_dead_letters(make_memory: MakeMemory) -> None:
    async with make_memory(idempotency_window=0.001) as memory:
        first = await record(memory, "a", event("one body"), key="k")
        await memory.wait([("a", first.position)], "durable", 10)
        other = await record(memory, "a", event("another body"), key="k")
        await memory.wait([("a", other.position)], "durable", 10)
        [letter] = await memory.dead_letters.list()
        assert b"another body" in letter.raw
        assert [one.content for one in (await memory.timeline("a", TimelineQuery())).events] == ["one body"]


async def test_working_memory_has_no_lease_before_its_snapshot(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    shard = settings.shard_of("a")
    async with make_memory(max_delay=600.0) as memory, admin_redis(stores) as client:
        document, window = settings.keys.document(shard, "a"), settings.keys.window(shard, "a")
        await record(memory, "a", event("x"), document='{"v": 1}')
        assert (await client.pttl(document), await client.pttl(window)) == (-1, -1)
        await memory.consolidator.flush()
        assert 0 < await client.pttl(document) <= 600_000
        assert 0 < await client.pttl(window) <= 600_000
        await record(memory, "a", event("y"))
        assert (await client.pttl(document), await client.pttl(window)) == (-1, -1)


@pytest.mark.parametrize("late", [b'{"working_memory": {"set": {"v": 2}}}', b'{"events": [{"content": "y"}]}'])
async def test_no_lease_begins_over_what_was_written_after_the_batch_was_read(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch, late: bytes
) -> None:
    """A write between the commit and its settling."""
    async with make_memory(max_delay=600.0) as memory, admin_redis(stores) as client:
        await record(memory, "a", event("x"), document='{"v": 1}')
        settle = Consolidator._settle

        async def write_first(self: Consolidator, *args: Any) -> None:
            await memory.record("a", parse_turn(late))
            await settle(self, *args)

        monkeypatch.setattr(Consolidator, "_settle", write_first)
        await memory.consolidator.flush()
        shard = settings.shard_of("a")
        assert await client.pttl(settings.keys.document(shard, "a")) == -1
        assert await client.pttl(settings.keys.window(shard, "a")) == -1


async def test_an_expired_document_says_so_and_is_restored_on_request(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory() as memory, admin_redis(stores) as client:
        receipt = await record(memory, "a", event("x"), document='{"v": 1}')
        await memory.wait([("a", receipt.position)], "durable", 10)
        shard = settings.shard_of("a")
        await client.delete(settings.keys.document(shard, "a"), settings.keys.window(shard, "a"))
        with pytest.raises(DocumentExpired) as caught:
            await memory.read_document("a")
        assert caught.value.version == str(receipt.position)
        assert (await memory.read_snapshot("a", receipt.position)).body == b'{"v": 1}'
        woken = await memory.hydrate("a", HydrateQuery())
        assert (woken.cold_start, woken.working_memory) == ("expired", None)
        assert [one.content for one in woken.recent] == ["x"]
        restored = await memory.hydrate("a", HydrateQuery(restore=True))
        assert restored.working_memory == b'{"v": 1}'
        assert (await memory.read_document("a")).version == restored.version
        assert (await memory.hydrate("a", HydrateQuery())).cold_start is None
        assert (await memory.hydrate("nobody", HydrateQuery())).cold_start == "new-agent"


async def test_only_the_last_snapshots_are_kept(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory(snapshots_kept=3) as memory:
        for number in range(6):
            receipt = await record(memory, "a", event("x"), document=f'{{"v": {number}}}')
            await memory.wait([("a", receipt.position)], "durable", 10)
        found = await rows(stores, settings, "SELECT body FROM {schema}.working_snapshots ORDER BY opening, sequence")
        assert [row["body"] for row in found] == [b'{"v": 3}', b'{"v": 4}', b'{"v": 5}']


async def test_a_paused_owner_writes_nothing_after_its_shard_was_taken(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_memory(max_delay=600.0) as one, make_memory(instance="two", work=False) as two:
        await one.consolidator._ownership.renew()
        await record(one, "a", event("x"), document='{"v": 1}')
        write = one.consolidator._writer.write

        async def lose_it_first(*args: Any, **kwargs: Any) -> Any:
            connection = await admin_postgres(stores)
            await connection.execute(f"UPDATE \"{settings.keys.schema}\".shards SET lease_until = '-infinity'")
            await connection.close()
            await two.consolidator._ownership.renew(all_of_them=True)
            return await write(*args, **kwargs)

        monkeypatch.setattr(one.consolidator._writer, "write", lose_it_first)
        await one.consolidator.flush()
        assert await rows(stores, settings, "SELECT id FROM {schema}.memory_events") == []
        assert len(await parts_of(one).tail.pending("a")) == 1
        monkeypatch.undo()
        await two.consolidator.flush()
        assert len(await rows(stores, settings, "SELECT id FROM {schema}.memory_events")) == 1


async def test_shards_are_shared_out_fairly_and_handed_over(make_memory: MakeMemory) -> None:
    async with make_memory() as one:
        await _until(lambda: len(one.consolidator.owned) == 4)
        async with make_memory(instance="two") as two:
            await _until(lambda: len(one.consolidator.owned) == 2 and len(two.consolidator.owned) == 2)
        await _until(lambda: len(one.consolidator.owned) == 4)


async def test_a_shard_that_its_owner_stopped_tending_is_taken_by_someone(make_memory: MakeMemory) -> None:
    """Also when the owner, by then, has its fair share without it."""
    async with make_memory(work=False) as one, make_memory(instance="two", work=False) as two:
        first, second = one.consolidator._ownership, two.consolidator._ownership
        await first.renew()
        assert len(first.owned) == 4
        first.forget(0)
        async with asyncio.timeout(30):
            while set(first.owned) | set(second.owned) != {0, 1, 2, 3}:
                await second.renew()
                await first.renew()
        assert not set(first.owned) & set(second.owned)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


async def test_drain_empties_every_journal(make_memory: MakeMemory, stores: LocalStores, settings: Settings) -> None:
    async with make_memory(max_delay=600.0) as memory:
        for number in range(20):
            await record(memory, f"agent-{number}", event("x"))
        monkey = memory.consolidator.stop
        memory.consolidator.stop = memory.consolidator._ownership.release  # type: ignore[method-assign]
    assert monkey is not None
    async with make_memory(instance="drain", work=False) as drainer:
        assert (await drainer.status()).pending == 20
        await drainer.consolidator.drain()
        assert (await drainer.status()).pending == 0
    assert len(await rows(stores, settings, "SELECT id FROM {schema}.memory_events")) == 20


async def test_an_entry_that_crashes_its_owner_alone_ends_as_a_dead_letter(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each crash is a new epoch that finds the same head of the stream."""
    async with make_memory(max_delay=600.0, batch_size=2, work=False) as memory:
        ownership = memory.consolidator._ownership
        await ownership.renew(all_of_them=True)
        await memory.consolidator.round()
        await record(memory, "a", event("deadly"))
        await record(memory, "a", event("fine"))
        shard = memory.settings.shard_of("a")

        async def crash(*args: Any, deadly: bool = False, **kwargs: Any) -> Any:
            if deadly or b"deadly" not in args[1].entries[0].events:
                return await write(*args, deadly=deadly, **kwargs)
            raise ConnectionAbortedError

        write = memory.consolidator._writer.write
        monkeypatch.setattr(memory.consolidator._writer, "write", crash)
        crashes = 0
        while (await memory.status()).pending:
            await ownership.release()
            await ownership.renew(all_of_them=True)
            try:
                await memory.consolidator.move_batch(ownership.owned[shard])
            except ConnectionAbortedError:
                crashes += 1
        assert crashes == 6
        [letter] = await memory.dead_letters.list()
        assert b"deadly" in letter.raw
        assert [one.content for one in (await memory.timeline("a", TimelineQuery())).events] == ["fine"]


async def test_a_failure_of_the_worker_itself_never_stops_a_shard(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails for no reason that Postgres gives is narrowed down in the same way."""
    async with make_memory(batch_size=2, lease=0.2) as memory:
        write = memory.consolidator._writer.write

        async def fail(*args: Any, deadly: bool = False, **kwargs: Any) -> Any:
            if not deadly and any(b"deadly" in entry.events for entry in args[1].entries):
                raise ValueError("a defect")
            return await write(*args, deadly=deadly, **kwargs)

        monkeypatch.setattr(memory.consolidator._writer, "write", fail)
        receipts = [await record(memory, "a", event(content)) for content in ("fine", "deadly", "fine as well")]
        await memory.wait([("a", receipt.position) for receipt in receipts], "durable", 60)
        [letter] = await memory.dead_letters.list()
        assert b"deadly" in letter.raw
        page = await memory.timeline("a", TimelineQuery())
        assert [one.content for one in page.events] == ["fine", "fine as well"]


async def test_large_turns_go_in_batches_of_a_bounded_size(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmemory_engine.journal._BATCH_BYTES", 1000)
    async with make_memory(max_delay=600.0) as memory:
        for number in range(40):
            await record(memory, "a", event(f"{number} " + "x" * 300))
        assert len(await parts_of(memory).tail.pending("a")) == 40
        write, sizes = memory.consolidator._writer.write, []

        async def count(owned: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
            sizes.append(len(batch.entries))
            return await write(owned, batch, *args, **kwargs)

        monkeypatch.setattr(memory.consolidator._writer, "write", count)
        await memory.consolidator.flush()
        assert sizes == [4] * 10
        page = await memory.timeline("a", TimelineQuery())
        assert [one.content.split()[0] for one in page.events if one.content] == [f"{number}" for number in range(40)]


async def test_events_of_an_agent_keep_their_order(make_memory: MakeMemory) -> None:
    async with make_memory(batch_size=8) as memory:
        receipts = [await record(memory, "a", event(f"{number}")) for number in range(50)]
        await memory.wait([("a", receipts[-1].position)], "durable", 10)
        page = await memory.timeline("a", TimelineQuery(limit=100))
        assert [one.position for one in page.events] == [receipt.position for receipt in receipts]
