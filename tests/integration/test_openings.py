"""Openings: a new run of Redis may have gone back in time, and whatever was lost is known as lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import Receipt
from agentmemory_engine.errors import DocumentExpired, NoDocument, PositionLost, ShardClosed
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.positions import Entry
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Opener
from agentmemory_engine.turns import parse_turn
from support.backups import Backup, flush
from support.memories import MakeMemory, admin_postgres, admin_redis, parts_of


async def write(memory: Memory, number: int, agent: str = "a") -> Receipt:
    body = f'{{"events": [{{"content": "{number}"}}], "working_memory": {{"set": {{"v": {number}}}}}}}'
    return await memory.record(agent, parse_turn(body.encode()), key=f"key-{number}")


async def contents(memory: Memory, agent: str = "a") -> list[str | None]:
    return [event.content for event in (await memory.timeline(agent, TimelineQuery())).events]


@pytest.fixture
async def quiet(make_memory: MakeMemory) -> Any:
    """A memory whose worker does nothing by itself, and whose shards are open."""
    async with make_memory(work=False, max_delay=600.0) as memory:
        await flush(memory)
        yield memory


@pytest.fixture
async def backup(stores: LocalStores, tmp_path: Path) -> Backup:
    return Backup(stores, tmp_path)


async def test_a_restart_without_loss_loses_nothing(quiet: Memory, stores: LocalStores) -> None:
    await write(quiet, 1)
    await stores.valkey.kill()
    await stores.valkey.start()
    with pytest.raises(ShardClosed):
        await parts_of(quiet).journal._append(_submission("a"))
    await flush(quiet)
    assert await contents(quiet) == ["1"]
    assert (await quiet.read_document("a")).body == b'{"v": 1}'
    receipt = await write(quiet, 2)
    assert receipt.position.entry.opening == 2


def _submission(agent: str) -> Any:
    from agentmemory_engine.journal import Change, Submission

    return Submission(agent, "k", b"12345678", None, b"[]", 0, [], Change())


async def test_what_a_crash_of_redis_took_is_lost_and_never_called_durable(quiet: Memory, backup: Backup) -> None:
    kept = await write(quiet, 1)
    await backup.take()
    taken = await write(quiet, 2)
    await backup.restore()
    await flush(quiet)
    later = await write(quiet, 3)
    await flush(quiet)
    assert await contents(quiet) == ["1", "3"]
    assert [await quiet.state("a", one.position) for one in (kept, taken, later)] == [
        "searchable",
        "lost",
        "searchable",
    ]
    with pytest.raises(PositionLost):
        await quiet.wait([("a", taken.position)], "durable", 5)


async def test_what_was_durable_before_the_crash_stays_durable_and_is_put_back(quiet: Memory, backup: Backup) -> None:
    first = await write(quiet, 1)
    await backup.take()
    second = await write(quiet, 2)
    await quiet.consolidator.flush()
    await backup.restore()
    await flush(quiet)
    assert await contents(quiet) == ["1", "2"]
    assert [await quiet.state("a", one.position) for one in (first, second)] == ["searchable", "searchable"]
    document = await quiet.read_document("a")
    assert (document.body, document.version) == (b'{"v": 2}', second.position)
    assert [event.content for event in (await quiet.recent("a")).events] == ["1", "2"]


async def test_a_recent_window_that_went_back_is_not_served(make_memory: MakeMemory, backup: Backup) -> None:
    async with make_memory(work=False, max_delay=600.0, recent_messages=1) as memory:
        await flush(memory)
        await write(memory, 1)
        await backup.take()
        await write(memory, 2)
        await memory.consolidator.flush()
        await backup.restore()
        closed = await memory.recent("a")
        assert ([event.content for event in closed.events], closed.degraded) == (["2"], ["unflushed"])
        await flush(memory)
        opened = await memory.recent("a")
        assert ([event.content for event in opened.events], opened.degraded) == (["2"], [])


async def test_a_turn_retried_after_redis_lost_its_key_is_not_doubled(quiet: Memory, backup: Backup) -> None:
    await backup.take()
    first = await write(quiet, 1)
    await quiet.consolidator.flush()
    await backup.restore()
    await flush(quiet)
    again = await write(quiet, 1)
    assert again.events == first.events
    await flush(quiet)
    assert await contents(quiet) == ["1"]
    assert (await quiet.read_document("a")).version == first.version


async def test_flushall_closes_the_shards_until_they_are_opened(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    first = await write(quiet, 1)
    await quiet.consolidator.flush()
    second = await write(quiet, 2)
    async with admin_redis(stores) as client:
        await client.flushall()
    with pytest.raises(ShardClosed):
        await parts_of(quiet).journal._read_key(
            settings.shard_of("a"), "GET", settings.keys.document(settings.shard_of("a"), "a")
        )
    await flush(quiet)
    assert await contents(quiet) == ["1"]
    assert await quiet.state("a", second.position) == "lost"
    document = await quiet.read_document("a")
    assert (document.body, document.version) == (b'{"v": 1}', first.version)
    async with admin_redis(stores) as client:
        assert await client.pttl(settings.keys.document(settings.shard_of("a"), "a")) > 0


async def test_a_document_whose_lease_had_ended_is_not_put_back(make_memory: MakeMemory, stores: LocalStores) -> None:
    async with make_memory(work=False, max_delay=600.0, ttl=0.001) as memory:
        await flush(memory)
        await write(memory, 1)
        await memory.consolidator.flush()
        async with admin_redis(stores) as client:
            await client.flushall()
        await flush(memory)
        with pytest.raises(DocumentExpired):
            await memory.read_document("a")


async def test_an_old_document_is_never_served_in_place_of_an_expired_newer_one(
    make_memory: MakeMemory, backup: Backup
) -> None:
    async with make_memory(work=False, max_delay=600.0, ttl=0.001) as memory:
        await flush(memory)
        await write(memory, 1)
        await backup.take()
        await write(memory, 2)
        await memory.consolidator.flush()
        await backup.restore()
        await flush(memory)
        with pytest.raises(DocumentExpired):
            await memory.read_document("a")


@pytest.mark.parametrize("step", ["_put_token", "_record", "_restore"])
async def test_an_opener_that_dies_half_way_is_followed_by_one_that_begins_anew(
    quiet: Memory, stores: LocalStores, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await write(quiet, 1)
    await stores.valkey.kill()
    await stores.valkey.start()

    async def die(*_: Any) -> Any:
        raise ConnectionAbortedError

    monkeypatch.setattr(Opener, step, die)
    await quiet.consolidator.round()
    monkeypatch.undo()
    assert not (await parts_of(quiet).journal.probe(quiet.settings.shard_of("a"))).open
    await flush(quiet)
    assert await contents(quiet) == ["1"]


async def test_an_opener_that_was_overtaken_opens_nothing(
    quiet: Memory, make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops at each later step, and its token does not replace a newer one."""
    shard = settings.shard_of("a")
    owned = quiet.consolidator.owned[shard]
    opener = quiet.consolidator._opener
    await stores.valkey.kill()
    await stores.valkey.start()
    connection = await parts_of(quiet).redis.connection()
    assert connection.info is not None
    run_id = connection.info.run_id
    old = await opener._begin(owned, at_least=0)
    assert old is not None
    newer = await opener.open(old)
    assert newer is not None
    assert (await opener._put_token(run_id, old))[0] == b"behind"
    assert await opener._record(old, run_id, Entry(0, 0), Entry(0, 0)) is None
    assert not await opener._restore(old, run_id)
    assert (await parts_of(quiet).journal.probe(shard)).mark == (run_id, newer.opening)


async def test_a_batch_read_under_another_opening_is_dropped(
    quiet: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(quiet, 1)
    shard = settings.shard_of("a")
    stale = quiet.consolidator.owned[shard]
    await stores.valkey.kill()
    await stores.valkey.start()
    await flush_openings(quiet)
    assert not await quiet.consolidator.move_batch(stale)
    assert len(await parts_of(quiet).tail.pending("a")) == 1
    assert not await parts_of(quiet).journal.settle(shard, opening=stale.opening, durable=Entry(9, 9), leases=[])
    assert len(await parts_of(quiet).tail.pending("a")) == 1


async def flush_openings(memory: Memory) -> None:
    await memory.consolidator._ownership.renew(all_of_them=True)
    await memory.consolidator.round()


async def test_postgres_that_went_back_behind_the_trim_is_a_gap_reported_as_lost(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    """A promoted standby without the last commits."""
    first = await write(quiet, 1)
    await quiet.consolidator.flush()
    connection = await admin_postgres(stores)
    schema, shard = settings.keys.schema, settings.shard_of("a")
    before = await connection.fetchrow(f'SELECT * FROM "{schema}".shards WHERE shard = $1', shard)
    assert before is not None
    second = await write(quiet, 2)
    await quiet.consolidator.flush()
    place = "(opening, sequence) = ($1, $2)"
    for table in ("memory_events", "working_snapshots"):
        await connection.execute(f'DELETE FROM "{schema}".{table} WHERE {place}', *second.position.entry)
    await connection.execute(
        f'UPDATE "{schema}".shards SET durable_opening = $2, durable_sequence = $3 WHERE shard = $1',
        shard, before["durable_opening"], before["durable_sequence"],
    )  # fmt: skip
    await connection.close()
    await flush(quiet)
    await quiet.consolidator._ownership.renew(all_of_them=True)
    await flush(quiet)
    third = await write(quiet, 3)
    await flush(quiet)
    states = [await quiet.state("a", one.position) for one in (first, second, third)]
    assert states == ["searchable", "lost", "searchable"]
    assert await contents(quiet) == ["1", "3"]


async def test_a_document_that_postgres_lost_does_not_expire_before_it_is_snapshotted_again(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, 1)
    await quiet.consolidator.flush()
    connection = await admin_postgres(stores)
    await connection.execute(f'DELETE FROM "{settings.keys.schema}".working_snapshots')
    await connection.close()
    shard = settings.shard_of("a")
    opened = await quiet.consolidator._opener.open(quiet.consolidator.owned[shard])
    assert opened is not None
    quiet.consolidator._ownership.owned[shard] = opened
    async with admin_redis(stores) as client:
        assert await client.pttl(settings.keys.document(shard, "a")) == -1
        await flush(quiet)
        assert await client.pttl(settings.keys.document(shard, "a")) > 0
    snapshot = await parts_of(quiet).working.last_snapshot("a")
    assert snapshot is not None and snapshot.body == b'{"v": 1}'


async def test_positions_do_not_go_back_when_postgres_forgot_an_opening(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    """Redis knows of a later opening than Postgres: the next one is past both."""
    shard = settings.shard_of("a")
    for _ in range(3):
        opened = await quiet.consolidator._opener.open(quiet.consolidator.owned[shard])
        assert opened is not None
        quiet.consolidator._ownership.owned[shard] = opened
    believed = replace(quiet.consolidator.owned[shard], opening=1)
    first = await write(quiet, 1)
    connection = await admin_postgres(stores)
    await connection.execute(f'UPDATE "{settings.keys.schema}".shards SET opening = 1 WHERE shard = $1', shard)
    await connection.close()
    quiet.consolidator._ownership.owned[shard] = believed
    await flush(quiet)
    second = await write(quiet, 2)
    assert second.position > first.position
    await flush(quiet)
    assert await contents(quiet) == ["1", "2"]


async def test_a_deleted_document_stays_deleted_through_an_opening(quiet: Memory, backup: Backup) -> None:
    await write(quiet, 1)
    await quiet.consolidator.flush()
    await backup.take()
    await quiet.record("a", parse_turn(b'{"working_memory": {"delete": true}}'))
    await quiet.consolidator.flush()
    await backup.restore()
    await flush(quiet)
    with pytest.raises(NoDocument):
        await quiet.read_document("a")
