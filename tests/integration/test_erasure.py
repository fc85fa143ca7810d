"""Erasure: all of an agent goes, in every tier; nothing brings it back; what comes after is a new life."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine import tombstones
from agentmemory_engine.answers import Erased, Fact, Receipt, StoredEvent
from agentmemory_engine.embedding import Vector
from agentmemory_engine.errors import (
    KeyReused,
    NoDeadLetter,
    NoDocument,
    NoFact,
    NoSession,
    NoSnapshot,
    StoreUnavailable,
)
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.export import SessionLine
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import FactChange, NewFact
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.journal import Journal
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.positions import Position
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.semantic import Strategy
from agentmemory_engine.sessions import NewSession, SessionChange, SessionQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import Unflushed
from agentmemory_engine.tombstones import Erasure, Tombstones
from agentmemory_engine.turns import parse_turn
from support.backups import Backup, flush
from support.memories import MakeMemory, admin_postgres, admin_redis, parts_of
from support.sidecars import LettersEmbedder

NOTHING = dict.fromkeys((field.name for field in fields(Erased)), 0)
WORDS = "first second pending before after number fact"
STRATEGIES: tuple[Strategy, ...] = ("hybrid", "semantic", "keyword")
POISON = '"metadata": {"number": 1e200000}'
OF_AN_AGENT = (
    "memory_events", "event_embeddings", "embedding_queue", "agent_sessions", "working_snapshots", "dead_letters",
    "agent_knowledge", "knowledge_embeddings", "knowledge_queue",
)  # fmt: skip


async def write(
    memory: Memory, content: str, agent: str = "a", *, session: str = "day-1", document: str = "", more: str = ""
) -> Receipt:
    """A turn with one message, under a key that is its content."""
    change = f', "working_memory": {{"set": {document}}}' if document else ""
    event = f'{{"content": "{content}"{more and ", " + more}}}'
    turn = parse_turn(f'{{"session": "{session}", "events": [{event}]{change}}}'.encode())
    return await memory.record(agent, turn, key=content)


async def believe(memory: Memory, agent: str, content: str, key: str | None = None) -> Fact:
    fact, _ = await memory.knowledge.put(agent, NewFact(topic="t", content=content, key=key))
    return fact


async def execute(stores: LocalStores, settings: Settings, sql: str, *args: Any) -> list[Any]:
    connection = await admin_postgres(stores)
    try:
        return await connection.fetch(sql.replace("{schema}", f'"{settings.keys.schema}"'), *args)
    finally:
        await connection.close()


async def counts(stores: LocalStores, settings: Settings, agent: str) -> dict[str, int]:
    """How many rows of this agent each table has."""
    found = {}
    for table in OF_AN_AGENT:
        [row] = await execute(stores, settings, f"SELECT count(*) FROM {{schema}}.{table} WHERE agent_id = $1", agent)
        found[table] = row["count"]
    return found


async def contents(memory: Memory, agent: str = "a") -> list[str | None]:
    forwards = (await memory.timeline(agent, TimelineQuery(limit=2))).events
    backwards = (await memory.timeline(agent, TimelineQuery(order="desc", limit=1000))).events[::-1]
    assert forwards == backwards[:2]
    await check_merged(memory, agent, backwards)
    return [event.content for event in backwards]


async def check_merged(memory: Memory, agent: str, events: list[StoredEvent]) -> None:
    """A timeline of several agents shows just these of this one."""
    for query in (TimelineQuery(limit=2), TimelineQuery(order="desc", limit=1000)):
        found, cursor = [], None
        while True:
            page = await memory.timelines([agent, "other"], replace(query, cursor=cursor))
            found += [one.event for one in page.events if one.agent == agent]
            cursor = page.cursor
            if cursor is None:
                break
        assert (found if query.order == "asc" else found[::-1]) == events


async def check_gone(memory: Memory, agent: str = "a", *, snapshot: Position | None = None) -> None:
    """No read shows anything of the agent."""
    assert await contents(memory, agent) == []
    assert (await memory.recent(agent)).events == []
    for strategy in STRATEGIES:
        recalled = await memory.recall(agent, RecallQuery(query=WORDS, strategy=strategy))
        assert (recalled.hits, recalled.not_yet_searchable) == ([], 0)
    with_filter = RecallQuery(query=WORDS, filter=Filter(metadata=b"{}"))
    assert (await memory.recall(agent, with_filter)).hits == []
    assert (await memory.sessions.page(agent, SessionQuery())).sessions == []
    for session in ("day-1", "day-2"):
        with pytest.raises(NoSession):
            await memory.sessions.read(agent, session)
        with pytest.raises(NoSession):
            await memory.sessions.change(agent, session, SessionChange(ended=True))
    assert (await memory.knowledge.search(agent, FactQuery(query=WORDS))).hits == []
    assert (await memory.knowledge.page(agent, KnowledgeQuery(history=True))).facts == []
    with pytest.raises(NoDocument):
        await memory.read_document(agent)
    woken = await memory.hydrate(agent, HydrateQuery(query=WORDS, restore=True))
    assert woken.knowledge == []
    assert (woken.text, woken.cold_start, woken.degraded) == ("", "new-agent", [])
    assert [letter for letter in await memory.dead_letters.list() if letter.agent == agent] == []
    if snapshot is not None:
        with pytest.raises(NoSnapshot):
            await memory.read_snapshot(agent, snapshot)


@pytest.fixture
async def quiet(make_memory: MakeMemory) -> AsyncIterator[Memory]:
    """A memory whose workers do nothing by themselves, and whose shards are open."""
    async with make_memory(work=False, max_delay=600.0, embedder=LettersEmbedder()) as memory:
        await flush(memory)
        yield memory


@pytest.fixture
def backup(stores: LocalStores, tmp_path: Any) -> Backup:
    return Backup(stores, tmp_path)


async def settle(memory: Memory) -> None:
    """Make all durable, and searchable."""
    await flush(memory)
    while await parts_of(memory).vectors.embed_batch():
        pass


async def live(memory: Memory, stores: LocalStores, settings: Settings, agent: str) -> Position:
    """Leave something of an agent in every table; answers the version of its document."""
    written = await write(memory, "first", agent, document='{"v": 1}')
    await write(memory, "refused", agent, more=POISON)
    await believe(memory, agent, "a fact")
    await settle(memory)
    await believe(memory, agent, "a fact without a vector")
    await write(memory, "second", agent, session="day-2")
    await memory.consolidator.flush()
    assert written.version is not None
    return written.version


async def test_all_of_an_agent_goes_and_nothing_of_another(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await live(quiet, stores, settings, "b")
    snapshot = await live(quiet, stores, settings, "a")
    before = await counts(stores, settings, "b")
    there = await counts(stores, settings, "a")
    assert [table for table, rows in there.items() if not rows] == []
    await write(quiet, "pending")
    accepted = await quiet.erase("a", key="forget", seconds=0)
    await flush(quiet)
    receipt = await quiet.erase("a", key="forget", seconds=0)
    assert (accepted.erased, receipt.position, receipt.repeated) == (None, accepted.position, True)
    assert receipt.erased is not None
    assert asdict(receipt.erased) == {
        "documents": 1, "messages": 4, "journalled": 1, "events": 2, "embeddings": 1, "snapshots": 1,
        "dead_letters": 1, "sessions": 2, "knowledge": 2,
    }  # fmt: skip
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)
    assert await counts(stores, settings, "b") == before
    await check_gone(quiet, snapshot=snapshot)
    assert await contents(quiet, "b") == ["first", "second"]
    [tombstone] = await execute(stores, settings, "SELECT agent, opening, sequence FROM {schema}.tombstones")
    assert tuple(tombstone) == (digest_agent("a"), *receipt.position.entry)
    assert await quiet.state("a", receipt.position) == "searchable"


async def test_what_is_left_in_redis_has_a_lease(quiet: Memory, stores: LocalStores, settings: Settings) -> None:
    await write(quiet, "before", document='{"v": 1}')
    await quiet.erase("a", seconds=0)
    shard = settings.shard_of("a")
    document, window = settings.keys.document(shard, "a"), settings.keys.window(shard, "a")
    async with admin_redis(stores) as client:
        assert (await client.pttl(document), await client.exists(window)) == (-1, 0)
        await flush(quiet)
        assert 0 < await client.pttl(document) <= 600_000
        await write(quiet, "after")
        assert await client.pttl(document) == -1
        await flush(quiet)
        assert 0 < await client.pttl(document) <= 600_000


async def test_what_names_the_agent_after_it(quiet: Memory, stores: LocalStores, settings: Settings) -> None:
    """Its revision, which tells followers of its rows to begin anew, and nothing else in Postgres."""
    await live(quiet, stores, settings, "agent-x")
    await quiet.erase("agent-x", seconds=0)
    await flush(quiet)
    dumped = {}
    for row in await execute(
        stores, settings,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = $1 AND table_type = 'BASE TABLE'",
        settings.keys.schema,
    ):  # fmt: skip
        rows = await execute(stores, settings, f"SELECT t::text AS line FROM {{schema}}.{row['table_name']} t")
        dumped[row["table_name"]] = [one["line"] for one in rows if "agent-x" in one["line"]]
    assert [table for table, lines in dumped.items() if lines] == ["agent_revisions"]
    assert dumped["agent_revisions"] == ["(agent-x,2)"]


async def test_an_agent_that_has_nothing_gets_a_receipt_of_zeros(make_memory: MakeMemory) -> None:
    async with make_memory() as memory:
        receipt = await memory.erase("nobody")
        assert receipt.erased is not None
        assert asdict(receipt.erased) == NOTHING
        assert not receipt.repeated


async def test_nothing_is_read_from_acceptance_on_though_nothing_is_carried_out(
    quiet: Memory, make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    snapshot = await live(quiet, stores, settings, "a")
    await write(quiet, "pending", document='{"v": 2}')
    async with make_memory(instance="two", work=False, embedder=LettersEmbedder()) as other:
        assert await contents(other) == ["first", "second", "pending"]
        assert (await quiet.erase("a", seconds=0)).erased is None
        for memory in (quiet, other):
            await check_gone(memory, snapshot=snapshot)
        await write(quiet, "new life", document='{"v": 3}')
        for memory in (quiet, other):
            assert await contents(memory) == ["new life"]
            assert [event.content for event in (await memory.recent("a")).events] == ["new life"]
            assert (await memory.read_document("a")).body == b'{"v": 3}'
            assert (await memory.recall("a", RecallQuery(query="abc"))).not_yet_searchable == 1
    assert (await counts(stores, settings, "a"))["memory_events"] == 2
    await settle(quiet)
    assert await contents(quiet) == ["new life"]
    assert [hit.event.content for hit in (await quiet.recall("a", RecallQuery(query="life"))).hits] == ["new life"]
    assert (await quiet.read_document("a")).body == b'{"v": 3}'


async def test_nothing_is_read_while_redis_is_down_either(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    snapshot = await live(quiet, stores, settings, "a")
    await quiet.erase("a", seconds=0)
    await stores.valkey.kill()
    try:
        page = await quiet.timeline("a", TimelineQuery())
        assert (page.events, page.degraded) == ([], ["unflushed"])
        assert (await quiet.recent("a")).events == []
        found = await quiet.recall("a", RecallQuery(query="abc"))
        assert (found.hits, found.degraded) == ([], ["unflushed"])
        with pytest.raises(NoSnapshot):
            await quiet.read_snapshot("a", snapshot)
        assert await quiet.dead_letters.list() == []
    finally:
        await stores.valkey.start()
    await flush(quiet)
    await check_gone(quiet, snapshot=snapshot)


async def test_what_comes_after_it_is_a_new_life(quiet: Memory, stores: LocalStores, settings: Settings) -> None:
    await live(quiet, stores, settings, "a")
    await quiet.erase("a", key="forget", seconds=0)
    await believe(quiet, "a", "a new fact")
    await quiet.sessions.start("a", NewSession(id="n"))
    await write(quiet, "after", session="day-1", document='{"v": 4}')
    await settle(quiet)
    assert await contents(quiet) == ["after"]
    kept = await execute(stores, settings, "SELECT session_id FROM {schema}.agent_sessions ORDER BY session_id")
    assert [row["session_id"] for row in kept] == ["day-1", "n"]
    facts = await execute(stores, settings, "SELECT content FROM {schema}.agent_knowledge")
    assert [row["content"] for row in facts] == ["a new fact"]
    async with admin_redis(stores) as client:
        shard = settings.shard_of("a")
        assert await client.pttl(settings.keys.document(shard, "a")) > 0


async def test_a_session_that_both_lives_name_begins_with_the_second(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, "before", more='"at": "2001-01-01T00:00:00Z"')
    await quiet.erase("a", seconds=0)
    await write(quiet, "after", more='"at": "2002-02-02T00:00:00Z"')
    await flush(quiet)
    [session] = await execute(stores, settings, "SELECT started_at FROM {schema}.agent_sessions")
    assert session["started_at"] == datetime(2002, 2, 2, tzinfo=UTC)


async def test_a_session_that_only_pending_turns_had_named_is_not_made(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory(work=False, max_delay=600.0, batch_size=1) as memory:
        await flush(memory)
        await write(memory, "before")
        await memory.erase("a", key="forget", seconds=0)
        await flush(memory)
        assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)
        receipt = await memory.erase("a", key="forget", seconds=0)
        assert receipt.erased is not None
        assert (receipt.erased.events, receipt.erased.sessions) == (1, 0)


async def test_what_is_declared_after_it_is_there_while_it_is_not_carried_out(
    quiet: Memory, make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    await live(quiet, stores, settings, "a")
    await quiet.erase("a", seconds=0)
    await believe(quiet, "a", "a new fact")
    await quiet.sessions.start("a", NewSession(id="day-1"))
    async with make_memory(instance="two", work=False, embedder=LettersEmbedder()) as other:
        for memory in (quiet, other):
            hits = (await memory.knowledge.search("a", FactQuery(query="fact"))).hits
            assert [hit.fact.content for hit in hits] == ["a new fact"]
            woken = await memory.hydrate("a", HydrateQuery(query="fact"))
            assert [hit.fact.content for hit in woken.knowledge] == ["a new fact"]
            [session] = (await memory.sessions.page("a", SessionQuery())).sessions
            assert (session.id, session.last_event_at) == ("day-1", None)
    await settle(quiet)
    assert (await quiet.knowledge.page("a", KnowledgeQuery(history=True))).facts[0].content == "a new fact"
    [session] = (await quiet.sessions.page("a", SessionQuery())).sessions
    assert (session.id, session.last_event_at) == ("day-1", None)


async def remake_session(quiet: Memory, stores: LocalStores, settings: Settings) -> None:
    """An erasure under way, and a session from before it, as a batch that began before the mark leaves it."""
    await quiet.erase("a", seconds=0)
    await execute(
        stores, settings,
        "INSERT INTO {schema}.agent_sessions (agent_id, session_id, started_at, last_event_at, derived)"
        " VALUES ('a', 'day-1', $1, $1, true)",
        datetime(2001, 1, 1, tzinfo=UTC),
    )  # fmt: skip


async def test_a_session_that_is_left_of_the_former_life_is_not_there(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, "before")
    await remake_session(quiet, stores, settings)
    await check_gone(quiet)
    await write(quiet, "after")
    [session] = (await quiet.sessions.page("a", SessionQuery())).sessions
    assert session == await quiet.sessions.read("a", "day-1")
    assert session.started_at.year > 2001
    await flush(quiet)
    assert (await quiet.sessions.page("a", SessionQuery())).sessions == [session]


@pytest.mark.parametrize("how", ["start", "change", "import"])
async def test_a_session_of_the_new_life_takes_nothing_from_the_former(
    quiet: Memory, stores: LocalStores, settings: Settings, how: str
) -> None:
    await write(quiet, "before", more='"at": "2001-01-01T00:00:00Z"')
    await remake_session(quiet, stores, settings)
    if how == "start":
        _, new = await quiet.sessions.start("a", NewSession(id="day-1"))
        assert new
    elif how == "change":
        await write(quiet, "after")
        await quiet.sessions.change("a", "day-1", SessionChange(ended=True))
    else:
        line = SessionLine(session="day-1", started_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert (await quiet.import_rows("a", [line], [])).sessions == 1
    there = await quiet.sessions.read("a", "day-1")
    assert there.started_at.year > 2001
    await flush(quiet)
    assert await quiet.sessions.read("a", "day-1") == there


async def test_a_session_that_was_erased_while_it_was_about_to_be_changed_is_not_made(
    quiet: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(quiet, "before")
    unflushed = parts_of(quiet).tail.unflushed

    async def overtaken(agent: str) -> Unflushed:
        monkeypatch.undo()
        read = await unflushed(agent)
        await quiet.erase("a", seconds=0)
        return read

    monkeypatch.setattr(parts_of(quiet).tail, "unflushed", overtaken)
    with pytest.raises(NoSession):
        await quiet.sessions.change("a", "day-1", SessionChange(ended=True))
    await check_gone(quiet)


async def test_a_change_of_a_fact_under_way_comes_before_the_mark_or_finds_nothing(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    fact = await believe(quiet, "a", "a fact")
    async with parts_of(quiet).knowledge.alone("a") as session:
        erasing = asyncio.create_task(quiet.erase("a", seconds=0))
        await waits_for_a_lock(stores, erasing)
        changing = asyncio.create_task(quiet.knowledge.change("a", fact.id, FactChange(confidence=0.5)))
        await session.execute(parts_of(quiet).postgres.query("end_fact"), "a", fact.id)
        await session.execute(
            parts_of(quiet).postgres.query("insert_fact"),
            "a", UUID(int=1), fact.id, None, "t", "a fact, still", 1.0, [], None, b"", settings.shard_of("a"),
            None,
        )  # fmt: skip
    await erasing
    with pytest.raises(NoFact):
        await changing
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)


async def test_one_that_was_never_marked_takes_nothing_that_a_later_one_left(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await live(quiet, stores, settings, "a")
    await parts_of(quiet).journal.erase("a", "not acknowledged")
    await quiet.erase("a", seconds=0)
    fact = await believe(quiet, "a", "a new fact")
    await quiet.sessions.start("a", NewSession(id="n"))
    await settle(quiet)
    assert (await quiet.knowledge.page("a", KnowledgeQuery(history=True))).facts == [fact]
    assert [session.id for session in (await quiet.sessions.page("a", SessionQuery())).sessions] == ["n"]


async def test_a_turn_that_crashes_its_owner_is_no_dead_letter_after_it(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, "before")
    await quiet.erase("a", seconds=0)
    owned = quiet.consolidator.owned[settings.shard_of("a")]
    batch = await parts_of(quiet).journal.read(owned.shard, opening=owned.opening, epoch=owned.epoch, count=10)
    assert batch is not None
    first, last = replace(batch, entries=batch.entries[:1]), replace(batch, entries=batch.entries[1:])
    writer = quiet.consolidator._writer
    assert (await written(writer.write(owned, last, {}, None, deadly=True))).dead == 0
    await written(writer.write(owned, first, {}, None, deadly=True))
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)


async def written(writing: Any) -> Any:
    done = await writing
    assert done is not None
    return done


async def test_a_mark_hides_from_a_reader_without_redis_only_what_is_before_it(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    receipts = [await write(quiet, f"number {number}") for number in range(8)]
    await flush(quiet)
    erasure = Erasure("a", receipts[5].position.entry, b"k", datetime.now(UTC))
    async with parts_of(quiet).postgres.transaction() as session:
        await Tombstones(parts_of(quiet).postgres).mark(session, settings.shard_of("a"), erasure)
    assert len(await contents(quiet)) == 8
    await stores.valkey.kill()
    try:
        assert await contents(quiet) == ["number 6", "number 7"]
    finally:
        await stores.valkey.start()


async def test_the_key_of_an_erasure_erases_once_also_after_redis_lost_it(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, "before")
    first = await quiet.erase("a", key="forget", seconds=0)
    with pytest.raises(KeyReused):
        await write(quiet, "forget")
    await flush(quiet)
    await write(quiet, "after")
    await flush(quiet)
    async with admin_redis(stores) as client:
        await client.flushall()
    await flush(quiet)
    again = await quiet.erase("a", key="forget", seconds=0)
    assert (again.position, again.repeated) == (first.position, True)
    await flush(quiet)
    assert await contents(quiet) == ["after"]
    with pytest.raises(KeyReused):
        await write(quiet, "turn", "b")
        await quiet.erase("b", key="turn", seconds=0)


async def test_several_erasures_at_once_each_have_their_own_receipt(quiet: Memory) -> None:
    await write(quiet, "1")
    await write(quiet, "2")
    await quiet.erase("a", key="one", seconds=0)
    await write(quiet, "3")
    await quiet.erase("a", key="two", seconds=0)
    await write(quiet, "4")
    await flush(quiet)
    receipts = [await quiet.erase("a", key=key, seconds=0) for key in ("one", "two")]
    assert [receipt.erased and receipt.erased.journalled for receipt in receipts] == [2, 1]
    assert await contents(quiet) == ["4"]


async def test_a_retry_from_before_is_still_known(quiet: Memory) -> None:
    first = await write(quiet, "before", document='{"v": 1}')
    await quiet.erase("a", seconds=0)
    assert (await write(quiet, "before", document='{"v": 1}')).repeated
    await flush(quiet)
    again = await write(quiet, "before", document='{"v": 1}')
    assert (again.repeated, again.position) == (True, first.position)
    await flush(quiet)
    await check_gone(quiet)


async def test_an_entry_that_is_consolidated_again_brings_nothing_back(
    quiet: Memory, make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit was done, and its trim was not; a later owner reads the entries one by one."""

    async def vanish(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("redis", "the owner died before it trimmed")

    await write(quiet, "before", document='{"v": 1}', more=POISON)
    await write(quiet, "before, too", document='{"v": 1}')
    await quiet.erase("a", key="forget", seconds=0)
    monkeypatch.setattr(quiet.consolidator._journal, "settle", vanish)
    with pytest.raises(StoreUnavailable):
        await quiet.consolidator.flush()
    monkeypatch.undo()
    await quiet.consolidator._ownership.release()
    shard = settings.shard_of("a")
    async with make_memory(instance="two", work=False, max_delay=600.0, batch_size=1) as other:
        await other.consolidator._ownership.renew(all_of_them=True)
        while (await parts_of(other).journal.probe(shard)).pending:
            await other.consolidator.move_batch(other.consolidator.owned[shard])
            assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)
        receipt = await other.erase("a", key="forget", seconds=0)
        assert receipt.erased is not None
        assert receipt.erased.journalled == 2


async def test_a_crash_of_redis_back_to_before_it_brings_nothing_back(quiet: Memory, backup: Backup) -> None:
    await write(quiet, "before", document='{"v": 1}')
    await flush(quiet)
    await backup.take()
    await quiet.erase("a", key="forget", seconds=0)
    await flush(quiet)
    await backup.restore()
    await flush(quiet)
    await check_gone(quiet)
    await write(quiet, "after")
    receipt = await quiet.erase("a", key="forget", seconds=0)
    assert (receipt.repeated, receipt.erased is not None) == (True, True)
    assert await contents(quiet) == ["after"]


@pytest.mark.parametrize("how", ["rollback", "flushall", "restart"])
async def test_one_that_was_accepted_is_carried_out_whatever_redis_lost(
    quiet: Memory,
    stores: LocalStores,
    settings: Settings,
    backup: Backup,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(tombstones, "_AT_ONCE", 1)
    await live(quiet, stores, settings, "a")
    await write(quiet, "pending")
    await backup.take()
    accepted = await quiet.erase("a", key="forget", seconds=0)
    if how == "rollback":
        await backup.restore()
    elif how == "flushall":
        async with admin_redis(stores) as client:
            await client.flushall()
    else:
        await stores.valkey.kill()
        await stores.valkey.start()
    await flush(quiet)
    await check_gone(quiet)
    receipt = await quiet.erase("a", key="forget", seconds=0)
    assert (receipt.position, receipt.repeated) == (accepted.position, True)
    assert receipt.erased is not None
    assert (receipt.erased.events, receipt.erased.snapshots) == (2, 1)
    [revision] = await execute(stores, settings, "SELECT revision FROM {schema}.agent_revisions")
    assert revision["revision"] == 3
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)


async def test_one_that_redis_lost_before_it_was_marked_is_begun_anew(
    quiet: Memory, backup: Backup, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opening did not know of it: a mark that came behind it would stay for ever."""
    await write(quiet, "before")
    await flush(quiet)
    await backup.take()
    erase = Journal.erase

    async def late(self: Journal, *args: Any) -> Receipt:
        receipt = await erase(self, *args)
        if receipt.position.entry.opening == 1:
            await backup.restore()
            await flush(quiet)
        return receipt

    monkeypatch.setattr(Journal, "erase", late)
    receipt = await quiet.erase("a", key="forget", seconds=0)
    assert receipt.position.entry.opening == 2
    assert await contents(quiet) == []
    await flush(quiet)
    assert (await quiet.erase("a", key="forget", seconds=0)).erased is not None
    await check_gone(quiet)
    marks = await execute(stores, settings, "SELECT opening, erased_at FROM {schema}.erasures")
    assert [(row["opening"], row["erased_at"] is None) for row in marks] == [(2, False)]


async def test_one_that_postgres_was_not_told_of_takes_nothing_that_was_told_after_it(
    quiet: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live(quiet, stores, settings, "a")
    with monkeypatch.context() as patch:

        async def refuse(*_: Any) -> None:
            raise StoreUnavailable("postgres", "it went away")

        patch.setattr(Tombstones, "mark", refuse)
        with pytest.raises(StoreUnavailable):
            await quiet.erase("a", key="forget", seconds=0)
    await believe(quiet, "a", "a new fact")
    await quiet.sessions.start("a", NewSession(id="n"))
    await settle(quiet)
    assert (await quiet.erase("a", key="forget", seconds=0)).erased is not None
    [fact] = (await quiet.knowledge.page("a", KnowledgeQuery(history=True))).facts
    assert fact.content == "a new fact"
    assert [one.id for one in (await quiet.sessions.page("a", SessionQuery())).sessions] == ["n"]


async def test_one_whose_mark_failed_is_not_acknowledged_and_can_be_asked_for_again(
    quiet: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live(quiet, stores, settings, "a")

    async def refuse(*_: Any) -> None:
        raise StoreUnavailable("postgres", "it went away")

    monkeypatch.setattr(Tombstones, "mark", refuse)
    with pytest.raises(StoreUnavailable):
        await quiet.erase("a", key="forget", seconds=0)
    monkeypatch.undo()
    assert (await counts(stores, settings, "a"))["agent_knowledge"] == 2
    again = await quiet.erase("a", key="forget", seconds=0)
    assert again.repeated
    assert (await counts(stores, settings, "a"))["agent_knowledge"] == 0


async def test_one_that_nobody_marked_is_carried_out_all_the_same(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    """The sidecar that accepted it died in between."""
    await live(quiet, stores, settings, "a")
    await parts_of(quiet).journal.erase("a", "forget")
    await flush(quiet)
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)
    receipt = await quiet.erase("a", key="forget", seconds=0)
    assert receipt.erased is not None
    assert (receipt.erased.documents, receipt.erased.knowledge, receipt.erased.sessions) == (1, 2, 2)


async def test_much_is_erased_in_small_transactions_and_counted_as_a_whole(
    quiet: Memory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tombstones, "_AT_ONCE", 2)
    for number in range(5):
        await write(quiet, f"number {number}")
    await settle(quiet)
    await quiet.erase("a", key="forget", seconds=0)
    await flush(quiet)
    receipt = await quiet.erase("a", key="forget", seconds=0)
    assert receipt.erased is not None
    assert (receipt.erased.events, receipt.erased.embeddings) == (5, 5)
    [revision] = await execute(stores, settings, "SELECT revision FROM {schema}.agent_revisions")
    assert revision["revision"] == 4


async def test_a_dead_letter_from_before_is_not_there_to_be_replayed(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await live(quiet, stores, settings, "a")
    [letter] = await quiet.dead_letters.list()
    await quiet.erase("a", seconds=0)
    await flush(quiet)
    with pytest.raises(NoDeadLetter):
        await quiet.dead_letters.replay("a", letter.id)
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)


async def test_a_replay_under_way_comes_before_or_after_and_brings_nothing_back(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await live(quiet, stores, settings, "a")
    await execute(stores, settings, "UPDATE {schema}.dead_letters SET raw = $1", b'{"content": "mended"}')
    [letter] = await quiet.dead_letters.list()
    shard = settings.shard_of("a")
    erasure = Erasure("a", replace_sequence(letter.position).entry, b"k", datetime.now(UTC))
    async with parts_of(quiet).postgres.transaction() as session:
        await session.execute(f'SELECT FROM "{settings.keys.schema}".shards WHERE shard = $1 FOR UPDATE', shard)
        replay = asyncio.create_task(quiet.dead_letters.replay("a", letter.id))
        await waits_for_a_lock(stores, replay)
        await Tombstones(parts_of(quiet).postgres).carry_out(session, shard, erasure, journalled=0)
    with pytest.raises(NoDeadLetter):
        await replay
    assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)


def replace_sequence(position: Position) -> Position:
    """One far behind it."""
    return replace_entry(position, position.entry.sequence + 100)


def replace_entry(position: Position, sequence: int) -> Position:
    return position._replace(entry=position.entry._replace(sequence=sequence))


async def waits_for_a_lock(stores: LocalStores, task: asyncio.Task[Any]) -> None:
    connection = await admin_postgres(stores)
    try:
        async with asyncio.timeout(30):
            while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not task.done()
    finally:
        await connection.close()


class Interrupted(LettersEmbedder):
    """Does something while a text is embedded."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Any] | None = None

    async def embed(self, texts: Any) -> list[Vector]:
        vectors = await super().embed(texts)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return vectors


async def test_an_embedding_in_flight_brings_nothing_back(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    embedder = Interrupted()
    async with make_memory(work=False, max_delay=600.0, embedder=embedder) as memory:
        await flush(memory)
        await write(memory, "before")
        await write(memory, "of another", "b")
        await flush(memory)

        async def erase() -> None:
            await memory.erase("a", seconds=0)
            await flush(memory)

        embedder.meanwhile = erase
        await settle(memory)
        assert await counts(stores, settings, "a") == dict.fromkeys(OF_AN_AGENT, 0)
        assert (await counts(stores, settings, "b"))["event_embeddings"] == 1


async def test_an_embedding_that_is_stored_while_its_event_is_being_erased_waits_for_that(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    await write(quiet, "before")
    await write(quiet, "of another", "b")
    await flush(quiet)
    async with parts_of(quiet).postgres.transaction() as session:
        await session.execute(f"DELETE FROM \"{settings.keys.schema}\".memory_events WHERE agent_id = 'a'")
        embedding = asyncio.create_task(settle(quiet))
        await waits_for_a_lock(stores, embedding)
    await embedding
    assert (await counts(stores, settings, "a"))["event_embeddings"] == 0
    assert (await counts(stores, settings, "b"))["event_embeddings"] == 1


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_in_whatever_order_nothing_erased_is_read_again(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, backup: Backup, seed: int
) -> None:
    """Turns, facts, erasures, consolidation, embedding, retries, replays, and Redis going back in time."""
    chance = random.Random(seed)
    async with (
        make_memory(work=False, max_delay=600.0, embedder=LettersEmbedder(), batch_size=3) as one,
        make_memory(work=False, max_delay=600.0, embedder=LettersEmbedder(), batch_size=3, instance="two") as two,
    ):
        await flush(one)
        run = Run(chance, one, two)
        backed_up = False
        for step in range(60):
            doing = chance.choice(
                ("write",) * 6 + ("erase", "believe") * 2 + ("flush", "embed", "retry", "replay", "redis")
            )
            if doing == "redis" and not backed_up:
                await backup.take()
                backed_up = True
            elif doing == "redis":
                await run.go_back(backup, stores)
            else:
                await getattr(run, doing)(step)
            await run.check()
        await flush(one)
        await run.check()


class Run:
    """What was acknowledged, and what must hold of it."""

    def __init__(self, chance: random.Random, *memories: Memory) -> None:
        self._chance = chance
        self._memories = memories
        self._written: list[tuple[str, str, Receipt]] = []
        self._erased: dict[str, Position] = {}
        self._believed: dict[str, list[str]] = {"a": [], "b": []}

    @property
    def _memory(self) -> Memory:
        return self._chance.choice(self._memories)

    def _agent(self) -> str:
        return self._chance.choice("ab")

    async def write(self, step: int) -> None:
        agent = self._agent()
        more = self._chance.choice(("", "", POISON))
        document = self._chance.choice(("", f'{{"v": {step}}}'))
        content = f"{agent} turn {step}"
        self._written.append((agent, content, await write(self._memory, content, agent, document=document, more=more)))

    async def erase(self, step: int) -> None:
        agent = self._agent()
        receipt = await self._memory.erase(agent, key=f"forget {step}", seconds=0)
        assert agent not in self._erased or receipt.position > self._erased[agent]
        self._erased[agent] = receipt.position
        self._believed[agent].clear()

    async def believe(self, step: int) -> None:
        agent = self._agent()
        await believe(self._memory, agent, f"fact {step}")
        self._believed[agent].insert(0, f"fact {step}")

    async def flush(self, _: int) -> None:
        await self._memories[0].consolidator.flush()

    async def embed(self, _: int) -> None:
        await parts_of(self._memory).vectors.embed_batch()

    async def retry(self, _: int) -> None:
        """Of an erasure: it is still the first one."""
        for agent, position in self._erased.items():
            row = await parts_of(self._memory).postgres.fetchrow("find_erasure", digest_agent(agent), b"")
            assert row is None
            assert await self._memory.state(agent, position) != "lost"

    async def replay(self, _: int) -> None:
        for letter in await self._memory.dead_letters.list():
            with pytest.raises(Exception, match="stays a dead letter"):
                await self._memory.dead_letters.replay(letter.agent, letter.id)

    async def go_back(self, backup: Backup, stores: LocalStores) -> None:
        if self._chance.random() < 0.5:
            await backup.restore()
        else:
            async with admin_redis(stores) as client:
                await client.flushall()
        await flush(self._memories[0])

    async def check(self) -> None:
        """What is erased is not there; what came after it is there, once, or is reported as lost."""
        letters = {letter.raw for letter in await self._memory.dead_letters.list()}
        for agent in "ab":
            erased = self._erased.get(agent)
            found = await contents(self._memory, agent)
            assert len(found) == len(set(found))
            recalled = await self._memory.recall(agent, RecallQuery(query="turn", strategy="keyword", k=100))
            assert {hit.event.content for hit in recalled.hits} == set(found)
            facts = (await self._memory.knowledge.page(agent, KnowledgeQuery(history=True))).facts
            assert [fact.content for fact in facts] == self._believed[agent]
            for whose, content, receipt in self._written:
                if whose != agent:
                    continue
                there = content in found or any(f'"{content}"'.encode() in raw for raw in letters)
                if erased is not None and receipt.position <= erased:
                    assert not there, content
                elif not there:
                    assert await self._memory.state(agent, receipt.position) == "lost", content
            await self._check_document(agent, erased)

    async def _check_document(self, agent: str, erased: Position | None) -> None:
        try:
            document = await self._memory.read_document(agent)
        except NoDocument:
            return
        assert erased is None or document.version > erased
