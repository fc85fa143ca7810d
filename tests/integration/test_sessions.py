"""Sessions: in Postgres at once, one with those that turns name, and listed without a double or a gap."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from msgspec import Raw

from agentmemory.local.stores import LocalStores
from agentmemory_engine.errors import InvalidInput, KeyReused, NoSession, StoreUnavailable
from agentmemory_engine.keys import digest_key
from agentmemory_engine.memory import Memory
from agentmemory_engine.sessions import NewSession, SessionChange, SessionQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from support.memories import MakeMemory, admin_postgres, consolidate, in_every_mode, with_postgres

HOUR_AGO = "2026-01-12T09:00:00Z"


def members(**values: object) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in values.items()}


async def record(memory: Memory, session: str, *, at: str | None = None) -> str:
    event = {"content": "x"} | ({"at": at} if at else {})
    receipt = await memory.record("a", parse_turn(json.dumps({"session": session, "events": [event]}).encode()))
    return str(receipt.position)


async def flush(memory: Memory) -> None:
    if memory.parts.consolidator is not None:
        await memory.parts.consolidator._ownership.renew(all_of_them=True)
        await memory.parts.consolidator.round()
    await consolidate(memory)


async def names(memory: Memory, **query: object) -> list[str]:
    return [one.id for one in (await memory.sessions.page("a", SessionQuery(**query))).sessions]  # type: ignore[arg-type]


async def walk(memory: Memory, limit: int) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await memory.sessions.page("a", SessionQuery(limit=limit, cursor=cursor))
        assert len(page.sessions) <= limit
        found += [one.id for one in page.sessions]
        cursor = page.cursor
        if cursor is None:
            return found


@in_every_mode
async def test_a_session_is_there_as_soon_as_it_is_started(memory: Memory) -> None:
    started, new = await memory.sessions.start("a", NewSession(id="day-1", metadata=members(task="q2")))
    assert new and started.ended_at is None and started.last_event_at is None
    assert await memory.sessions.read("a", "day-1") == started
    assert json.loads(started.metadata or b"") == {"task": "q2"}
    made, _ = await memory.sessions.start("a", NewSession())
    assert await names(memory) == [made.id, "day-1"]
    with pytest.raises(NoSession):
        await memory.sessions.read("b", "day-1")
    assert (await memory.sessions.page("b", SessionQuery())).sessions == []


@in_every_mode
async def test_starting_again_merges_and_opens_nothing(memory: Memory) -> None:
    await memory.sessions.start("a", NewSession(id="s", metadata=members(a=1, b={"c": 2})))
    ended = await memory.sessions.change("a", "s", SessionChange(ended=True))
    again, new = await memory.sessions.start("a", NewSession(id="s", metadata=members(b={"d": 3}, a=None)))
    assert not new and again.ended_at == ended.ended_at is not None
    assert json.loads(again.metadata or b"") == {"b": {"c": 2, "d": 3}}
    plain, _ = await memory.sessions.start("a", NewSession(id="s"))
    assert plain == again


@in_every_mode
async def test_a_repeated_start_undoes_nothing(memory: Memory) -> None:
    new = NewSession(id="s", metadata=members(a=1))
    await memory.sessions.start("a", new, key="k")
    await memory.sessions.change("a", "s", SessionChange(metadata=members(a=2)))
    repeated, created = await memory.sessions.start("a", new, key="k")
    assert not created and json.loads(repeated.metadata or b"") == {"a": 2}
    for other in (NewSession(id="s"), NewSession(id="t", metadata=members(a=1)), NewSession()):
        with pytest.raises(KeyReused):
            await memory.sessions.start("a", other, key="k")
    assert await names(memory) == ["s"]
    nameless, _ = await memory.sessions.start("a", NewSession(), key="another")
    assert await memory.sessions.start("a", NewSession(), key="another") == (nameless, False)


@in_every_mode
async def test_many_who_start_one_session_start_it_once(memory: Memory) -> None:
    started = await asyncio.gather(
        *(memory.sessions.start("a", NewSession(id="s", metadata=members(**{f"m{n}": n}))) for n in range(20))
    )
    assert sum(new for _, new in started) == 1
    session = await memory.sessions.read("a", "s")
    assert json.loads(session.metadata or b"") == {f"m{n}": n for n in range(20)}


@with_postgres
async def test_a_start_that_meets_its_own_key_under_way_is_a_repetition(
    memory: Memory, stores: LocalStores, settings: Settings
) -> None:
    administrator, watcher = await admin_postgres(stores), await admin_postgres(stores)
    other_start = f"""INSERT INTO "{settings.keys.schema}".agent_sessions
        (agent_id, session_id, started_at, start_key, start_fingerprint) VALUES ('a', 's', now(), $1, 'another')"""
    async with administrator.transaction():
        await administrator.execute(other_start, digest_key("k"))
        starting = asyncio.create_task(memory.sessions.start("a", NewSession(id="s", metadata=members(n=1)), key="k"))
        async with asyncio.timeout(30):
            while not await watcher.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
            ):
                await asyncio.sleep(0.01)
    with pytest.raises(KeyReused):
        await starting
    await administrator.close()
    await watcher.close()
    assert (await memory.sessions.read("a", "s")).metadata is None


@in_every_mode
async def test_ending_twice_is_harmless_and_a_late_event_does_not_open_it(make_memory: MakeMemory) -> None:
    async with make_memory(work=False) as memory:
        await flush(memory)
        await memory.sessions.start("a", NewSession(id="s", metadata=members(a=1)))
        first = await memory.sessions.change("a", "s", SessionChange(ended=True))
        assert first.ended_at is not None
        assert await memory.sessions.change("a", "s", SessionChange(ended=True)) == first
        await record(memory, "s", at=(first.ended_at + timedelta(seconds=1)).isoformat())
        await consolidate(memory)
        late = await memory.sessions.read("a", "s")
        assert late.ended_at == first.ended_at and late.metadata == first.metadata
        assert late.last_event_at is not None and late.last_event_at > first.ended_at
        opened = await memory.sessions.change("a", "s", SessionChange(ended=False))
        assert opened.ended_at is None and await names(memory, ended=False) == ["s"]


@in_every_mode
async def test_what_only_a_turn_has_named_is_a_session(make_memory: MakeMemory) -> None:
    async with make_memory(work=False, max_delay=600.0) as memory:
        await flush(memory)
        await record(memory, "old", at=HOUR_AGO)
        await consolidate(memory)
        await record(memory, "new")
        await record(memory, "old")
        assert await names(memory) == ["new", "old"] == await walk(memory, 1)
        assert await names(memory, ended=True) == [] == await names(memory, metadata=b"{}")
        old = await memory.sessions.read("a", "old")
        assert old.last_event_at is not None and old.started_at.isoformat() == "2026-01-12T09:00:00+00:00"
        assert old.last_event_at > old.started_at
        pending = await memory.sessions.read("a", "new")
        ended = await memory.sessions.change("a", "new", SessionChange(ended=True, metadata=members(a=1)))
        assert (ended.started_at, ended.last_event_at) == (pending.started_at, pending.last_event_at)
        with pytest.raises(NoSession):
            await memory.sessions.change("a", "unknown", SessionChange(ended=True))
        before = [await memory.sessions.read("a", name) for name in ("new", "old")]
        await consolidate(memory)
        assert [await memory.sessions.read("a", name) for name in ("new", "old")] == before
        assert await names(memory) == ["new", "old"] and await names(memory, ended=True) == ["new"]


@in_every_mode
async def test_an_event_before_the_start_moves_it_back(make_memory: MakeMemory) -> None:
    async with make_memory(work=False) as memory:
        await flush(memory)
        await memory.sessions.start("a", NewSession(id="s"))
        await record(memory, "s", at=HOUR_AGO)
        await consolidate(memory)
        session = await memory.sessions.read("a", "s")
        assert session.started_at == session.last_event_at
        assert session.started_at.isoformat() == "2026-01-12T09:00:00+00:00"


@in_every_mode
async def test_pages_neither_double_nor_miss_whatever_is_written_meanwhile(memory: Memory) -> None:
    for number in range(9):
        await memory.sessions.start("a", NewSession(id=f"s{number}"))
    page = await memory.sessions.page("a", SessionQuery(limit=4))
    seen = [one.id for one in page.sessions]
    await memory.sessions.start("a", NewSession(id="later"))
    await memory.sessions.change("a", "s2", SessionChange(ended=True))
    position = await memory.record("a", parse_turn(b'{"session": "s1", "events": [{"content": "x"}]}'))
    await memory.wait([("a", position.position)], "durable", 20)
    while page.cursor:
        page = await memory.sessions.page("a", SessionQuery(limit=4, cursor=page.cursor))
        seen += [one.id for one in page.sessions]
    assert seen == [f"s{number}" for number in range(8, -1, -1)]
    for cursor in ("nonsense", "e30=", "W10="):
        with pytest.raises(InvalidInput):
            await memory.sessions.page("a", SessionQuery(cursor=cursor))


@in_every_mode
async def test_sessions_are_found_by_their_metadata(memory: Memory) -> None:
    await memory.sessions.start("a", NewSession(id="one", metadata=members(task="q2", tags=["x", "y"])))
    await memory.sessions.start("a", NewSession(id="two", metadata=members(task="q3", tags=["y"])))
    await memory.sessions.start("a", NewSession(id="none"))
    await memory.sessions.change("a", "one", SessionChange(ended=True))
    assert await names(memory, metadata=b'{"task": "q2"}') == ["one"]
    assert await names(memory, metadata=b'{"tags": ["y"]}') == ["two", "one"]
    assert await names(memory, metadata=b'{"tags": ["y"]}', ended=False) == ["two"]
    cleared = await memory.sessions.change("a", "two", SessionChange(metadata=None))
    assert cleared.metadata is None and await names(memory, metadata=b"{}") == ["one"]


@in_every_mode
async def test_a_value_that_cannot_be_kept_changes_nothing(memory: Memory) -> None:
    await memory.sessions.start("a", NewSession(id="s", metadata=members(a=1)))
    huge = {"a": Raw(b"1e200000")}
    with pytest.raises(InvalidInput):
        await memory.sessions.change("a", "s", SessionChange(ended=True, metadata=huge))
    with pytest.raises(InvalidInput):
        await memory.sessions.start("a", NewSession(id="t", metadata=huge))
    for identity in ("", "x" * 257, "a\x00b"):
        with pytest.raises(InvalidInput):
            await memory.sessions.read("a", identity)
    assert await names(memory, ended=True) == [] and await names(memory) == ["s"]


async def test_without_redis_what_is_in_postgres_is_still_served(memory: Memory, stores: LocalStores) -> None:
    await memory.sessions.start("a", NewSession(id="s"))
    await stores.valkey.stop()
    try:
        page = await memory.sessions.page("a", SessionQuery())
        assert ([one.id for one in page.sessions], page.degraded) == (["s"], ["unflushed"])
        assert (await memory.sessions.read("a", "s")).id == "s"
        await memory.sessions.change("a", "s", SessionChange(ended=True))
        for unknown in (memory.sessions.read("a", "t"), memory.sessions.change("a", "t", SessionChange())):
            with pytest.raises(StoreUnavailable):
                await unknown
    finally:
        await stores.valkey.start()


async def test_without_postgres_it_says_so(memory: Memory, stores: LocalStores) -> None:
    await stores.postgres.stop()
    try:
        for call in (
            memory.sessions.start("a", NewSession(id="s")),
            memory.sessions.page("a", SessionQuery()),
            memory.sessions.read("a", "s"),
            memory.sessions.change("a", "s", SessionChange(ended=True)),
        ):
            with pytest.raises(StoreUnavailable, match="postgres"):
                await call
    finally:
        await stores.postgres.start()
