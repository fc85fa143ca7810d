"""Mode Redis: what is its own. What all modes promise is tested in every mode, where it is tested."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.administration import make_identity, open_client
from agentmemory_engine.answers import Receipt
from agentmemory_engine.channels import NewMessage
from agentmemory_engine.embedding import EmbeddingUnavailable, Unembeddable, Vector
from agentmemory_engine.errors import (
    DocumentExpired,
    ForeignStore,
    InvalidInput,
    JournalFull,
    KeyReused,
    NoDeadLetter,
    NoDocument,
    NoFact,
    NoSession,
    NoSnapshot,
    NotPrepared,
    PositionLost,
    SchemaMismatch,
    StoreUnavailable,
    UnreadableDocument,
)
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.export import Fact, LetterLine, SessionLine
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import FactChange, NewFact
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.redis import Credentials, RedisAddress
from agentmemory_engine.redis_only import embedding, retention
from agentmemory_engine.redis_only.keeper import Keeper
from agentmemory_engine.sessions import NewSession, SessionChange, SessionQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from agentmemory_sidecar.config import Config
from support.backups import Backup
from support.memories import MakeMemory, admin_redis, retention_of
from support.sidecars import LettersEmbedder, Running

pytestmark = pytest.mark.parametrize("mode", ["Redis"], indirect=True)


class Letters(LettersEmbedder):
    """Counts what it embeds, and fails where it is told to."""

    def __init__(self, model: str = "letters") -> None:
        self.model = model
        self.seen: list[str] = []
        self.down = False
        self.refuses = ""
        self.crashes_on = ""

    async def embed_query(self, text: str) -> Vector:
        if self.down:
            raise EmbeddingUnavailable("down")
        return await super().embed_query(text)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.down or (self.crashes_on and any(self.crashes_on in text for text in texts)):
            raise EmbeddingUnavailable("down")
        for index, text in enumerate(texts):
            if self.refuses and self.refuses in text:
                raise Unembeddable("no", index=index)
        self.seen += texts
        return await super().embed(texts)


async def write(memory: Memory, *contents: str, agent: str = "a", key: str | None = None, **more: Any) -> Receipt:
    body = {"events": [{"content": content} for content in contents], **more}
    return await memory.record(agent, parse_turn(json.dumps(body).encode()), key=key)


async def contents(memory: Memory, agent: str = "a") -> list[str | None]:
    return [event.content for event in (await memory.timeline(agent, TimelineQuery(limit=1000))).events]


async def recalled(memory: Memory, query: str, agent: str = "a", **more: Any) -> list[str | None]:
    return [hit.event.content for hit in (await memory.recall(agent, RecallQuery(query=query, **more))).hits]


async def embed_all(memory: Memory) -> None:
    """Have all looked at, whatever was looked at a moment ago."""
    worker: Any = memory.parts.vectors
    for shard in range(memory.settings.shards):
        worker._news.tell(shard)
    while await worker.embed_batch():
        pass


async def keys_of(stores: LocalStores, settings: Settings, agent: str = "a") -> list[str]:
    """The names of the agent's keys, without digests."""
    async with admin_redis(stores) as client:
        found = [key.decode() async for key in client.scan_iter(match=settings.keys.prefix + "*", count=10_000)]
    names = [":".join(key.rpartition("}:")[2].split(":")[:2]) for key in found]
    return sorted(name for name in names if name.endswith(f":{agent}"))


@pytest.fixture
async def quiet(make_memory: MakeMemory) -> AsyncIterator[Memory]:
    """A memory whose workers work when told."""
    async with make_memory(work=False, embedder=Letters()) as memory:
        yield memory


@pytest.fixture
async def backup(stores: LocalStores, tmp_path: Path) -> AsyncIterator[Backup]:
    yield Backup(stores, tmp_path)
    async with admin_redis(stores) as client:
        await client.execute_command("CONFIG", "SET", "appendfsync", "everysec")


async def test_a_turn_is_durable_at_once_and_searchable_once_it_is_embedded(quiet: Memory) -> None:
    receipt = await write(quiet, "apples", "  ")
    assert await quiet.state("a", receipt.position) == "durable"
    assert (await quiet.status()).unembedded == 1
    assert await recalled(quiet, "apples", strategy="keyword") == ["apples"]
    assert (await quiet.recall("a", RecallQuery(query="apples"))).not_yet_searchable == 1
    await embed_all(quiet)
    assert await quiet.state("a", receipt.position) == "searchable"
    assert await recalled(quiet, "pples a", strategy="semantic") == ["apples"]
    status = await quiet.status()
    assert (status.lag, status.pending, status.dead_letters, status.unembedded) == (0.0, 0, 0, 0)
    shard = status.shards[receipt.position.shard]
    assert shard.open and shard.durable == shard.searchable == receipt.position
    assert (await quiet.check(), await quiet.dead_letters.list()) == ({}, [])
    with pytest.raises(NoDeadLetter):
        await quiet.dead_letters.replay("a", receipt.events[0])


async def test_without_a_provider_a_turn_is_searchable_at_once(memory: Memory) -> None:
    receipt = await write(memory, "apples")
    assert await memory.state("a", receipt.position) == "searchable"
    assert (await memory.status()).unembedded == 0
    assert (await memory.recall("a", RecallQuery(query="apples"))).not_yet_searchable == 0


async def test_the_newest_turns_are_kept_and_what_was_let_go_of_is_not_lost(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory(work=False, history=16, embedder=Letters()) as memory:
        receipts = [await write(memory, f"turn {number}", session=f"s{number % 30}") for number in range(120)]
        kept = await contents(memory)
        assert kept == [f"turn {number}" for number in range(120 - len(kept), 120)]
        assert 16 <= len(kept) <= 17
        assert [await memory.state("a", receipts[number].position) for number in (0, 119)] == ["searchable", "durable"]
        assert await recalled(memory, "turn", k=100, strategy="keyword") == kept[::-1]
        assert {one.id for one in (await memory.sessions.page("a", SessionQuery())).sessions} == {
            f"s{number}" for number in range(30)
        }
        await embed_all(memory)
        for number in range(120, 220):
            await write(memory, f"turn {number}")
            await embed_all(memory)
        shard = settings.shard_of("a")
        async with admin_redis(stores) as client:
            vectors = await client.hlen(settings.keys.vectors(shard, "a"))
        assert len(await contents(memory)) <= vectors <= 16 + embedding._SLACK + 1
        assert len(await recalled(memory, "turn", k=100, strategy="semantic")) == len(await contents(memory))


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_cursor_goes_on_whatever_is_written_and_let_go_of(make_memory: MakeMemory, order: Any) -> None:
    async with make_memory(history=32) as memory:
        for number in range(32):
            await write(memory, f"{number}")
        seen: list[str | None] = []
        cursor = None
        while True:
            page = await memory.timeline("a", TimelineQuery(order=order, limit=5, cursor=cursor))
            seen += [event.content for event in page.events]
            cursor = page.cursor
            if cursor is None or len(seen) > 200:
                break
            if len(seen) < 30:
                for number in range(3):
                    await write(memory, f"{len(seen)} {number}")
        assert len(seen) == len(set(seen))
        left = await contents(memory)
        if order == "asc":
            assert seen[-len(left) :] == left
        else:
            assert seen == [str(number) for number in range(31, 31 - len(seen), -1)]


async def test_a_lease_begins_with_each_turn_and_its_end_is_final(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    shard, keys = settings.shard_of("a"), settings.keys
    await write(quiet, "hello", working_memory={"set": {"v": 1}})
    names = keys.document(shard, "a"), keys.window(shard, "a")
    async with admin_redis(stores) as client:
        for name in names:
            assert 0 < await client.pttl(name) <= settings.ttl * 1000
            await client.pexpire(name, 1000)
        version = (await write(quiet, "more")).version
        for name in names:
            assert await client.pttl(name) > 1000
            await client.delete(name)
    assert version is not None
    with pytest.raises(DocumentExpired) as caught:
        await quiet.read_document("a")
    assert caught.value.version is None
    with pytest.raises(NoSnapshot):
        await quiet.read_snapshot("a", version)
    woken = await quiet.hydrate("a", HydrateQuery(restore=True))
    assert (woken.cold_start, woken.working_memory) == ("expired", None)
    assert [event.content for event in woken.recent] == ["hello", "more"]
    await write(quiet, working_memory={"merge": {"w": 2}})
    assert (await quiet.read_document("a")).body == b'{"w":2}'
    await write(quiet, working_memory={"delete": True})
    async with admin_redis(stores) as client:
        await client.delete(names[0])
    with pytest.raises(NoDocument):
        await quiet.read_document("a")


async def test_what_redis_lost_is_never_called_durable(quiet: Memory, backup: Backup) -> None:
    kept = await write(quiet, "kept", working_memory={"set": {"v": 1}})
    fact, _ = await quiet.knowledge.put("a", NewFact(topic="t", content="kept"))
    await backup.take()
    lost = await write(quiet, "lost", working_memory={"set": {"v": 2}})
    await quiet.knowledge.put("a", NewFact(topic="t", content="lost"))
    assert await recalled(quiet, "lost") == ["lost"]
    await backup.restore()
    after = await write(quiet, "after", key="k")
    assert after.position > lost.position > kept.position
    assert [await quiet.state("a", one.position) for one in (kept, lost, after)] == ["durable", "lost", "durable"]
    assert await contents(quiet) == ["kept", "after"]
    assert (await quiet.read_document("a")).body == b'{"v": 1}'
    assert (await quiet.knowledge.page("a", KnowledgeQuery())).facts == [fact]
    assert await recalled(quiet, "lost") == []
    await embed_all(quiet)
    with pytest.raises(PositionLost):
        await quiet.wait([("a", kept.position), ("a", lost.position)], "durable", 5.0)
    await quiet.wait([("a", kept.position), ("a", after.position)], "searchable", 5.0)
    for never in (Entry(after.position.entry.opening, 1 << 40), Entry(after.position.entry.opening + 9, 1)):
        assert await quiet.state("a", Position(after.position.shard, never)) == "lost"


async def test_a_redis_that_lost_everything_goes_on(memory: Memory, stores: LocalStores, settings: Settings) -> None:
    identity = await memory.identity()
    before = await write(memory, "before", working_memory={"set": {"v": 1}})
    await memory.knowledge.put("a", NewFact(topic="t", content="before"))
    await memory.sessions.start("a", NewSession(id="s"))
    async with admin_redis(stores) as client:
        await client.flushall()
        await memory.channels.publish("c", NewMessage(sender="a", payload=parse_raw("{}")))
        with pytest.raises(NoDocument):
            await memory.read_document("a")
        assert await contents(memory) == []
        assert (await memory.knowledge.page("a", KnowledgeQuery())).facts == []
        with pytest.raises(NoSession):
            await memory.sessions.read("a", "s")
        after = await write(memory, "after", key="k")
        assert after.position > before.position
        assert await memory.state("a", before.position) == "lost"
        assert await memory.check() == {}
        assert (await client.get(settings.keys.identity)).decode().endswith(identity)
    assert await contents(memory) == ["after"]


async def test_a_closed_shard_is_opened_by_who_finds_it_closed(quiet: Memory, stores: LocalStores) -> None:
    await quiet.identity()
    for found in (
        lambda: write(quiet, "x"),
        lambda: contents(quiet),
        lambda: quiet.knowledge.put("a", NewFact(topic="t", content="x")),
        lambda: quiet.sessions.start("a", NewSession(id="s")),
        lambda: quiet.erase("a"),
        lambda: quiet.state("a", Position(0, Entry(1, 1))),
    ):
        async with admin_redis(stores) as client:
            await client.flushall()
        await found()


def parse_raw(text: str) -> Any:
    from msgspec import Raw

    return Raw(text.encode())


async def test_positions_go_on_however_soon_redis_loses_everything(quiet: Memory, stores: LocalStores) -> None:
    async with admin_redis(stores) as client:
        given: list[Receipt] = []
        for _ in range(20):
            given += [await write(quiet, "x"), await write(quiet, "y")]
            await client.flushall()
        given.append(await write(quiet, "last"))
    assert [one.position for one in given] == sorted({one.position for one in given})
    assert {await quiet.state("a", one.position) for one in given[:-1]} == {"lost"}
    assert await quiet.state("a", given[-1].position) == "durable"


async def test_a_restart_loses_nothing_and_opens_anew(memory: Memory, stores: LocalStores) -> None:
    first = await write(memory, "one", session="s")
    await stores.valkey.stop()
    with pytest.raises(StoreUnavailable):
        await memory.timeline("a", TimelineQuery())
    status = await memory.status()
    assert (status.lag, status.shards[0].open, status.degraded) == (None, None, ["redis"])
    await stores.valkey.start()
    second = await write(memory, "two")
    assert second.position.entry.opening > first.position.entry.opening
    assert await memory.state("a", first.position) == "searchable"
    assert await contents(memory) == ["one", "two"]


async def test_sidecars_share_the_embedding(make_memory: MakeMemory) -> None:
    one, other = Letters(), Letters()
    async with (
        make_memory(work=False, embedder=one, instance="one") as first,
        make_memory(work=False, embedder=other, instance="other") as second,
    ):
        written = [(f"agent-{n}", (await write(first, f"text {n}", agent=f"agent-{n}")).position) for n in range(40)]
        await asyncio.gather(embed_all(first), embed_all(second))
        assert sorted(one.seen + other.seen) == sorted(f"text {n}" for n in range(40))
        assert one.seen and other.seen
        await first.wait(written, "searchable", 5.0)


async def test_what_a_sidecar_that_died_had_claimed_is_its_own_after_a_restart(make_memory: MakeMemory) -> None:
    async with make_memory(work=False, embedder=Letters()) as memory:
        receipt = await write(memory, "text")
        worker: Any = memory.parts.vectors
        await embed_all(memory)
        await write(memory, "more")
        assert await worker._claim(receipt.position.shard) == ["a"]
        assert await worker._claim(receipt.position.shard) == []
    async with make_memory(embedder=Letters()) as memory:
        await memory.wait([("a", (await write(memory, "last")).position)], "searchable", 10.0)
        assert len(await recalled(memory, "x", strategy="semantic")) == 3


async def test_a_worker_embeds_what_others_accept(make_memory: MakeMemory) -> None:
    async with make_memory(work=False, embedder=Letters()) as writer, make_memory(embedder=Letters()):
        receipt = await write(writer, "apples")
        await writer.knowledge.put("a", NewFact(topic="fruit", content="apples are red"))
        await writer.wait([("a", receipt.position)], "searchable", 10.0)
        async with asyncio.timeout(10):
            while (await writer.knowledge.search("a", FactQuery(query="apples"))).not_yet_embedded:
                await asyncio.sleep(0.02)


async def test_what_comes_while_others_are_embedded_is_embedded_next(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Letters()
    async with make_memory(work=False, embedder=embedder) as memory:
        await write(memory, "first")
        embed, late = embedder.embed, []

        async def write_meanwhile(texts: Sequence[str]) -> list[Vector]:
            monkeypatch.undo()
            late.append(await write(memory, "late"))
            return await embed(texts)

        monkeypatch.setattr(embedder, "embed", write_meanwhile)
        await embed_all(memory)
        await embed_all(memory)
        assert await memory.state("a", late[0].position) == "searchable"
        assert (await memory.status()).unembedded == 0


@pytest.mark.parametrize("way", ["refuses", "crashes_on"])
async def test_what_no_provider_takes_is_given_up_and_keeps_nobody_waiting(make_memory: MakeMemory, way: str) -> None:
    embedder = Letters()
    setattr(embedder, way, "poison")
    async with make_memory(work=False, embedder=embedder) as memory:
        good = await write(memory, "good")
        bad = await write(memory, "bad poison", "as good")
        other = await write(memory, "other", agent="b")
        for _ in range(4):
            try:
                await embed_all(memory)
            except EmbeddingUnavailable:
                assert (await memory.status()).unembedded
        assert await memory.state("a", bad.position) == "searchable"
        assert await memory.state("a", good.position) == await memory.state("b", other.position) == "searchable"
        status = await memory.status()
        assert (status.unembedded, status.unembeddable) == (0, 1)
        assert (await memory.recall("a", RecallQuery(query="good"))).not_yet_searchable == 0
        assert sorted(str(one) for one in await recalled(memory, "good", strategy="semantic")) == ["as good", "good"]
        assert await recalled(memory, "poison", strategy="keyword") == ["bad poison"]
        await memory.erase("a")
        assert (await memory.status()).unembeddable == 0


async def test_a_provider_that_is_down_costs_searchability_only(make_memory: MakeMemory) -> None:
    embedder = Letters()
    embedder.down = True
    async with make_memory(embedder=embedder) as memory:
        receipt = await write(memory, "apples")
        answer = await memory.recall("a", RecallQuery(query="apples"))
        assert (len(answer.hits), answer.degraded, answer.not_yet_searchable) == (1, ["semantic"], 1)
        assert await memory.state("a", receipt.position) == "durable"
        embedder.down = False
        await memory.wait([("a", receipt.position)], "searchable", 20.0)


async def test_vectors_of_another_model_are_made_anew(make_memory: MakeMemory) -> None:
    async with make_memory(work=False, embedder=Letters()) as memory:
        receipt = await write(memory, "apples")
        await memory.knowledge.put("b", NewFact(topic="fruit", content="apples are red"))
        await embed_all(memory)
    embedder = Letters("other letters")
    async with make_memory(work=False, embedder=embedder) as memory:
        assert await memory.state("a", receipt.position) == "durable"
        assert await recalled(memory, "apples", strategy="semantic") == []
        await embed_all(memory)
        assert await memory.state("a", receipt.position) == "searchable"
        assert sorted(embedder.seen) == ["apples", "fruit: apples are red"]
        assert (await memory.status()).unembedded == 0


async def test_sidecars_of_two_models_leave_the_vectors_to_the_one_that_came_last(
    make_memory: MakeMemory, stores: LocalStores
) -> None:
    old, new = Letters("old letters"), Letters("new letters")
    async with (
        make_memory(work=False, embedder=old) as before,
        make_memory(work=False, embedder=new, instance="new") as after,
    ):
        await write(before, "apples")
        await embed_all(before)
        await embed_all(after)
        receipt = await write(before, "pears")
        await embed_all(before)
        assert old.seen == ["apples"]
        await embed_all(after)
        assert new.seen == ["apples", "pears"]
        assert await after.state("a", receipt.position) == "searchable"
        # Those of the model that came last are gone for good: the others see to it again.
        async with admin_redis(stores) as client:
            await client.hset(before.settings.keys.state(before.settings.shard_of("a")), "model_until", "0")
        receipt = await write(before, "plums")
        await embed_all(before)
        assert old.seen == ["apples", "apples", "pears", "plums"]
        assert await before.state("a", receipt.position) == "searchable"
        assert (await before.status()).unembedded == 0


async def test_a_batch_of_the_former_model_that_was_under_way_settles_nothing(make_memory: MakeMemory) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Letters):
        async def embed(self, texts: Sequence[str]) -> list[Vector]:
            begun.set()
            await go_on.wait()
            return await super().embed(texts)

    async with (
        make_memory(work=False, embedder=Slow("old letters")) as before,
        make_memory(work=False, embedder=Letters("new letters"), instance="new") as after,
    ):
        receipt = await write(before, "apples")
        under_way = asyncio.create_task(embed_all(before))
        await begun.wait()
        await embed_all(after)
        go_on.set()
        await under_way
        await embed_all(after)
        assert await after.state("a", receipt.position) == "searchable"


async def test_vectors_of_another_model_are_made_for_every_agent(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [f"agent-{number}" for number in range(40)]
    async with make_memory(work=False, embedder=Letters()) as memory:
        for agent in agents:
            await write(memory, "apples", agent=agent)
        await embed_all(memory)
    monkeypatch.setattr(embedding, "_AT_ONCE", 2)
    async with make_memory(work=False, embedder=Letters("others")) as memory:
        await embed_all(memory)
        for agent in agents:
            assert await recalled(memory, "apples", agent, strategy="semantic") == ["apples"], agent
        assert (await memory.status()).unembedded == 0


async def test_what_is_embedded_while_redis_goes_back_is_looked_at_again(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch, stores: LocalStores
) -> None:
    embedder = Letters()
    async with make_memory(work=False, embedder=embedder) as memory:
        await write(memory, *(f"apples {number}" for number in range(9)))
        embed, keys = embedder.embed, memory.settings.keys
        shard = memory.settings.shard_of("a")

        async def lose_vectors(texts: Sequence[str]) -> list[Vector]:
            if len(texts) == 1:
                async with admin_redis(stores) as client:
                    assert await client.delete(keys.vectors(shard, "a"))
                    await client.hset(keys.state(shard), "run", "another")
                await memory.check()
            return await embed(texts)

        monkeypatch.setattr(embedder, "embed", lose_vectors)
        await embed_all(memory)
        monkeypatch.undo()
        await embed_all(memory)
        assert (await memory.recall("a", RecallQuery(query="apples"))).not_yet_searchable == 0
        assert (await memory.status()).unembedded == 0


async def test_sidecars_of_a_model_that_was_replaced_make_no_vectors(
    make_memory: MakeMemory, stores: LocalStores
) -> None:
    async with make_memory(work=False, embedder=Letters("others"), instance="new") as new:
        async with make_memory(work=False, embedder=Letters(), instance="old") as old:
            await write(old, "apples")
            await embed_all(old)
            await embed_all(new)
            await write(old, "pears")
            await embed_all(old)
            await embed_all(new)
            assert sorted(map(str, await recalled(new, "apples", strategy="semantic"))) == ["apples", "pears"]
        async with make_memory(work=False, embedder=Letters(), instance="old") as old:
            # The one that started last has its way, as long as it is there.
            await embed_all(old)
            await write(new, "plums")
            await embed_all(new)
            assert (await new.recall("a", RecallQuery(query="plums"))).not_yet_searchable == 1
        async with admin_redis(stores) as client:
            await client.hset(new.settings.keys.state(new.settings.shard_of("a")), "model_until", "0")
        await embed_all(new)
        async with make_memory(work=False, embedder=Letters("others")) as other:
            assert (await other.recall("a", RecallQuery(query="plums"))).not_yet_searchable == 0


async def test_all_of_an_agent_is_erased_at_once(quiet: Memory, stores: LocalStores, settings: Settings) -> None:
    first = await write(quiet, "one", "two", key="k", session="named", working_memory={"set": {"v": 1}})
    await quiet.sessions.start("a", NewSession(id="started"))
    await quiet.knowledge.put("a", NewFact(topic="t", content="fact"))
    await write(quiet, "of another", agent="ab")
    await embed_all(quiet)
    receipt = await quiet.erase("a", key="e")
    assert receipt.erased is not None and receipt.position > first.position
    found = receipt.erased
    assert (found.documents, found.messages, found.events, found.embeddings) == (1, 2, 2, 3)
    assert (found.sessions, found.knowledge) == (2, 1)
    assert await quiet.erase("a", key="e") == replace(receipt, repeated=True)
    with pytest.raises(KeyReused):
        await write(quiet, "other", key="e")
    assert (await write(quiet, "one", "two", key="k", session="named", working_memory={"set": {"v": 1}})).repeated
    assert await contents(quiet) == [] == await recalled(quiet, "one")
    assert (await quiet.sessions.page("a", SessionQuery())).sessions == []
    assert (await quiet.knowledge.search("a", FactQuery(query="fact"))).hits == []
    with pytest.raises(NoDocument):
        await quiet.read_document("a")
    assert [await quiet.state("a", one.position) for one in (first, receipt)] == ["searchable", "searchable"]
    assert await keys_of(stores, settings) == ["about:a", "document:a", "key:a", "key:a", "log:a"]
    assert await contents(quiet, "ab") == ["of another"]
    again = await write(quiet, "a new life")
    assert await contents(quiet) == ["a new life"] and again.position > receipt.position


async def test_nothing_is_left_of_an_erased_agent_in_the_end(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    keeper: Any = quiet.parts.workers["openings"]
    assert isinstance(keeper, Keeper)
    await write(quiet, "one", key="k")
    await write(quiet, "stays", agent="b")
    await quiet.erase("a")
    await quiet.erase("b")
    await write(quiet, "a new life", agent="b")
    assert await keeper.tidy(0.0) == 0, "the tombstone is there still"
    shard = settings.shard_of("a")
    async with admin_redis(stores) as client:
        await client.delete(settings.keys.document(shard, "a"))
        other = settings.shard_of("b")
        await client.delete(settings.keys.document(other, "b"), settings.keys.window(other, "b"))
    assert await keeper.tidy(3600.0) == 0
    while not await keeper.tidy(0.0):
        pass
    assert set(await keys_of(stores, settings)) == {"key:a"}
    assert await contents(quiet, "b") == ["a new life"]
    assert (await write(quiet, "one", key="k")).repeated and await contents(quiet) == []
    after = await write(quiet, "later")
    assert await contents(quiet) == ["later"]
    assert await quiet.state("a", after.position) == "durable"


async def test_what_was_under_way_at_an_erasure_brings_nothing_back(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Letters()
    async with make_memory(work=False, embedder=embedder) as memory:
        await write(memory, "apples", session="s")
        fact, _ = await memory.knowledge.put("a", NewFact(topic="t", content="fact"))
        embed = embedder.embed

        async def erase_meanwhile(texts: Sequence[str]) -> list[Vector]:
            await memory.erase("a")
            return await embed(texts)

        monkeypatch.setattr(embedder, "embed", erase_meanwhile)
        await embed_all(memory)
        assert await keys_of(stores, settings) == ["about:a", "document:a", "key:a", "key:a", "log:a"]
        monkeypatch.undo()
        fact, _ = await memory.knowledge.put("a", NewFact(topic="t", content="fact"))
        store: Any = memory.parts.knowledge
        amend = store._records.amend

        async def amend_late(*args: Any) -> bool:
            monkeypatch.undo()
            await memory.erase("a")
            return bool(await amend(*args))

        monkeypatch.setattr(store._records, "amend", amend_late)
        with pytest.raises(NoFact):
            await memory.knowledge.change("a", fact.id, FactChange(content="other"))
        assert (await memory.knowledge.page("a", KnowledgeQuery(history=True))).facts == []


async def test_a_full_redis_takes_nothing_and_can_be_made_room_in(quiet: Memory, stores: LocalStores) -> None:
    kept = await write(quiet, "kept", agent="b", working_memory={"set": {"v": 1}})
    fact, _ = await quiet.knowledge.put("b", NewFact(topic="t", content="kept"))
    await quiet.sessions.start("b", NewSession(id="s"))
    async with admin_redis(stores) as client:
        await client.config_set("maxmemory", "1mb")
        try:
            for refused in (
                write(quiet, "refused", agent="b", working_memory={"set": {"v": 2}}),
                quiet.knowledge.put("b", NewFact(topic="t", content="refused")),
                quiet.knowledge.end("b", fact.id),
                quiet.sessions.start("b", NewSession(id="refused")),
                quiet.sessions.change("b", "s", SessionChange(ended=True)),
                quiet.import_rows("b", [SessionLine(session="x", started_at=datetime.now(UTC))], []),
            ):
                with pytest.raises(JournalFull):
                    await refused
            assert "redis" in await quiet.check()
            assert await contents(quiet, "b") == ["kept"]
            assert (await quiet.read_document("b")).version == kept.position
            assert (await quiet.knowledge.page("b", KnowledgeQuery(history=True))).facts == [fact]
            assert [one.id for one in (await quiet.sessions.page("b", SessionQuery(ended=False))).sessions] == ["s"]
            erased = (await quiet.erase("b")).erased
            assert erased is not None and (erased.events, erased.knowledge) == (1, 1)
        finally:
            await client.config_set("maxmemory", "0")
    assert await contents(quiet, "b") == []


async def test_what_is_too_old_goes_with_its_vectors_in_small_steps(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AGENTS_A_PAGE", 3)
    async with make_memory(work=False, embedder=Letters(), retention=1000.0) as memory:
        for number in range(7):
            for event in range(number):
                await write(memory, f"old {event}", agent=f"agent-{number}", session="s")
        await embed_all(memory)
        assert await retention_of(memory).sweep() == 0
    async with make_memory(work=False, embedder=Letters(), retention=0.001) as memory:
        swept = 0
        while swept < 21:
            swept += await retention_of(memory).sweep()
        assert swept == 21
        for number in range(1, 7):
            agent = f"agent-{number}"
            assert await contents(memory, agent) == [] == await recalled(memory, "old", agent)
            assert [one.id for one in (await memory.sessions.page(agent, SessionQuery())).sessions] == ["s"]
            assert f"vectors:{agent}" not in await keys_of(stores, settings, agent)
        assert await retention_of(memory).sweep() == 0
    async with make_memory(work=False) as memory:
        await write(memory, "new", agent="agent-3")
        assert await contents(memory, "agent-3") == ["new"]


async def test_an_old_key_with_another_body_is_a_turn_of_its_own(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    first = await write(quiet, "one", key="k")
    shard = settings.shard_of("a")
    async with admin_redis(stores) as client:
        async for key in client.scan_iter(match=f"*/{shard}}}:key:a:*"):
            await client.delete(key)
        again = await write(quiet, "one", key="k")
        assert not again.repeated and again.events == first.events
        assert await contents(quiet) == ["one"]
        async for key in client.scan_iter(match=f"*/{shard}}}:key:a:*"):
            await client.delete(key)
    await write(quiet, "two", key="k")
    assert await contents(quiet) == ["one", "two"] == sorted(map(str, await recalled(quiet, "one two")))


async def test_a_key_that_is_used_again_after_a_loss_brings_no_old_vector(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    shard = settings.shard_of("a")
    first = await write(quiet, "apples", key="k")
    await embed_all(quiet)
    assert (await quiet.recall("a", RecallQuery(query="apples", strategy="semantic"))).hits[0].score > 0.99
    async with admin_redis(stores) as client:
        vectors = await client.hgetall(settings.keys.vectors(shard, "a"))
        await client.flushall()
        again = await write(quiet, "quizzes", key="k")
        assert again.events == first.events
        await client.hset(settings.keys.vectors(shard, "a"), mapping=vectors)
    assert (await quiet.recall("a", RecallQuery(query="apples", strategy="semantic"))).hits == []
    assert await recalled(quiet, "apples", strategy="keyword") == []
    (hit,) = (await quiet.recall("a", RecallQuery(query="quizzes", strategy="keyword"))).hits
    assert hit.event.id == again.events[0]
    assert await quiet.state("a", again.position) == "durable"
    await embed_all(quiet)
    assert (await quiet.recall("a", RecallQuery(query="quizzes", strategy="semantic"))).hits[0].score > 0.99


@pytest.mark.parametrize("kind", ["string", "document", "hash"])
async def test_a_document_that_is_none_is_set_aside(
    quiet: Memory, stores: LocalStores, settings: Settings, kind: str
) -> None:
    key = settings.keys.document(settings.shard_of("a"), "a")
    await write(quiet, "hello", working_memory={"set": {"v": 1}})
    async with admin_redis(stores) as client:
        if kind == "hash":
            await client.delete(key)
            await client.hset(key, "another", "program")
        else:
            value = await client.get(key)
            await client.set(key, b"[1]" if kind == "string" else value.partition(b"\n")[0] + b"\n[1]")
        expected = b"[1]" if kind != "hash" else await client.dump(key)
    with pytest.raises(UnreadableDocument):
        await quiet.read_document("a")
    woken = await quiet.hydrate("a", HydrateQuery(restore=True))
    assert (woken.cold_start, woken.working_memory) == ("unreadable", None)
    (letter,) = woken.quarantined
    assert (letter.raw, letter.kind, letter.agent) == (expected, "document", "a")
    assert await quiet.dead_letters.list() == [letter] == [await quiet.dead_letters.read("a", letter.id)]
    assert (await quiet.status()).quarantined == 1
    with pytest.raises(InvalidInput, match="document"):
        await quiet.dead_letters.replay("a", letter.id)
    lines = [line async for line in quiet.exporter.lines(await quiet.exporter.begin("a"))]
    assert [line.raw for line in lines if isinstance(line, LetterLine)] == [expected]
    await write(quiet, working_memory={"set": {"v": 2}})
    assert (await quiet.read_document("a")).body == b'{"v": 2}'
    await write(quiet, "x", agent="ab")
    erased = (await quiet.erase("a")).erased
    assert erased is not None and erased.dead_letters == 1
    assert await quiet.dead_letters.list() == []
    with pytest.raises(NoDeadLetter):
        await quiet.dead_letters.discard("a", letter.id)


async def test_a_turn_keeps_what_another_program_put_there(
    quiet: Memory, stores: LocalStores, settings: Settings
) -> None:
    key = settings.keys.document(settings.shard_of("a"), "a")
    async with admin_redis(stores) as client:
        await client.set(key, "foreign")
        await write(quiet, "no change of it")
        assert await client.get(key) == b"foreign" and await client.ttl(key) == -1
    await write(quiet, working_memory={"set": {"v": 1}})
    (letter,) = await quiet.dead_letters.list()
    assert letter.raw == b"foreign"
    assert (await quiet.read_document("a")).body == b'{"v": 1}'
    await quiet.dead_letters.discard("a", letter.id)
    assert await quiet.dead_letters.list() == []


async def test_an_export_comes_back_the_same_and_once(make_memory: MakeMemory) -> None:
    async with make_memory() as memory:
        await write(memory, "hello", session="named", working_memory={"set": {"v": 1}})
        await memory.sessions.start("a", NewSession(id="started", metadata={"task": parse_raw('"q2"')}))
        await memory.sessions.change("a", "started", SessionChange(ended=True))
        for content in ("one", "two"):
            await memory.knowledge.put(
                "a", NewFact(topic="t", content=content, key="k", metadata={"n": parse_raw("1")})
            )
        begun = await memory.exporter.begin("a")
        lines = [line async for line in memory.exporter.lines(begun)]
        assert begun.document is not None and begun.document.body == b'{"v": 1}'
        sessions = [line for line in lines if isinstance(line, SessionLine)]
        facts = [line for line in lines if isinstance(line, Fact)]
        assert (len(sessions), len(facts), len(lines)) == (2, 2, 5)
        for expected in ((2, 2), (0, 0)):
            added = await memory.import_rows("b", sessions, facts)
            assert (added.sessions, added.knowledge) == expected
        copied = [line async for line in memory.exporter.lines(await memory.exporter.begin("b"))]
        assert copied == [*sessions, *facts]
        row = json.loads(facts[1].row)
        for broken in (
            row | {"id": "x"}, row | {"confidence": 2}, row | {"believed_from": "2026-01-01T00:00:00"},
            row | {"metadata": {"n": 1}, "fingerprint": "x"},
        ):  # fmt: skip
            with pytest.raises(InvalidInput):
                await memory.import_rows("c", sessions, [Fact(json.dumps(broken).encode())])
        assert (await memory.sessions.page("c", SessionQuery())).sessions == []
        other = row | {"id": str(UUID(int=1)), "origin": str(UUID(int=1)), "content": "contradicts"}
        assert (await memory.import_rows("b", [], [Fact(json.dumps(other).encode())])).knowledge == 0


async def test_a_filter_that_nothing_can_be_compared_with_is_the_callers_mistake(memory: Memory) -> None:
    query = Filter(metadata=b'{"n": 1e200000}')
    for asked in (
        memory.timeline("a", TimelineQuery(filter=query)),
        memory.timelines(["a", "b"], TimelineQuery(filter=query)),
        memory.recall("a", RecallQuery(query="x", filter=query)),
        memory.sessions.page("a", SessionQuery(metadata=b"{")),
    ):
        with pytest.raises(InvalidInput):
            await asked


async def test_what_jsonb_cannot_hold_is_refused_with_nothing_applied(memory: Memory) -> None:
    for number, refused in (("1e200000", True), ("1" + "0" * 140_000, True), ("1e12345", False), ('"1e200000"', False)):
        body = f'{{"events": [{{"content": "x", "metadata": {{"n": {number}}}}}]}}'.encode()
        if refused:
            with pytest.raises(InvalidInput):
                await memory.record("a", parse_turn(body))
        else:
            await memory.record("a", parse_turn(body))
    assert await contents(memory) == ["x", "x"]


async def test_a_sidecar_serves_it(config: Config) -> None:
    async with Running(replace(config, agents=("a",))) as sidecar:
        await sidecar.wait_until_ready()
        receipt = await sidecar.turn("a", "hello", session="s", working_memory={"set": {"v": 1}})
        position = {"agent": "a", "position": receipt["position"]}
        waited = await sidecar.send(
            "POST", "/v1/consolidation/barrier", {"positions": [position], "until": "searchable"}
        )
        assert waited.status == 200
        status = (await sidecar.send("GET", "/v1/consolidation")).json()
        assert (status["mode"], status["lag_seconds"], status["dead_letters"]) == ("Redis", 0.0, 0)
        found = await sidecar.send("POST", "/v1/agents/a/recall", {"query": "hello"})
        assert [hit["content"] for hit in found.json()["hits"]] == ["hello"]
        assert (await sidecar.send("GET", "/v1/dead-letters")).json()["dead_letters"] == []
        erased = (await sidecar.send("DELETE", "/v1/agents/a")).json()
        assert (erased["redis"]["documents"], erased["postgres"]["events"]) == (1, 1)
        assert not any("Postgres" in one["where"] for one in erased["not_yet_gone"])
        metrics = (await sidecar.ops("/metrics")).body.decode()
        assert 'agentmemory_store_up{store="redis"} 1.0' in metrics and 'store="postgres"' not in metrics


async def test_an_expired_document_has_no_address(config: Config, stores: LocalStores, settings: Settings) -> None:
    async with Running(config) as sidecar:
        await sidecar.wait_until_ready()
        await sidecar.turn("a", "hello", working_memory={"set": {"v": 1}})
        async with admin_redis(stores) as client:
            await client.delete(settings.keys.document(settings.shard_of("a"), "a"))
        answer = await sidecar.send("GET", "/v1/agents/a/working-memory")
        problem = answer.json()
        assert (answer.status, problem["type"].rpartition("/")[2]) == (404, "expired")
        assert not {"snapshot", "version"} & set(problem)


async def test_only_who_prepares_a_memory_makes_it(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    admin = Credentials(stores.redis_admin_user, stores.redis_admin_password)
    address = RedisAddress(url=stores.redis_url, credentials=lambda: admin)
    async with make_memory() as memory, admin_redis(stores) as client, open_client(address) as administrator:
        identity = await memory.identity()
        assert await make_identity(administrator, settings.keys, settings.shards) == identity
        with pytest.raises(SchemaMismatch, match="shards: 4"):
            await make_identity(administrator, settings.keys, 8)
        record = await client.get(settings.keys.identity)
        for found, error in (
            (None, NotPrepared),
            (b"0198f0c2-of-a-hybrid", ForeignStore),
            (b"Redis 8 x", SchemaMismatch),
        ):
            await client.delete(settings.keys.identity)
            if found is not None:
                await client.set(settings.keys.identity, found)
            async with make_memory() as another:
                with pytest.raises(error):
                    await write(another, "never")
                assert "redis" in await another.check()
        await client.set(settings.keys.identity, f"Redis {settings.shards} another")
        with pytest.raises(ForeignStore):
            await memory.parts.stores["redis"].refresh()  # type: ignore[attr-defined]
        await client.set(settings.keys.identity, record)
    assert await contents_of(make_memory) == []


async def contents_of(make_memory: MakeMemory) -> list[str | None]:
    async with make_memory() as memory:
        return await contents(memory)
