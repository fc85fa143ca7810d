"""A memory whose model of embeddings is changed in place: never short without saying so, and back again at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.embedding import EmbeddingUnavailable
from agentmemory_engine.errors import ModelInUse, NoModel
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import NewFact
from agentmemory_engine.memory import Memory
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from agentmemory_engine.vectors import OLD
from support.memories import MakeMemory, admin_postgres, parts_of
from support.seeded import Seeded

TEXTS = [f"text {number}" for number in range(40)]


async def record(memory: Memory, agent: str, *contents: str) -> Any:
    body = json.dumps({"events": [{"content": content} for content in contents]})
    return await memory.record(agent, parse_turn(body.encode()))


async def own(memory: Memory) -> None:
    """Have a memory that does not work by itself own and open its shards, which nobody else may hold."""
    await memory.consolidator._ownership.renew(all_of_them=True)
    await memory.consolidator.round()


async def write(memory: Memory, agent: str, *contents: str) -> Any:
    """Record, and move into Postgres."""
    await own(memory)
    receipt = await record(memory, agent, *contents)
    await memory.consolidator.flush()
    return receipt


async def embed_all(memory: Memory) -> int:
    """Embed until nothing waits for this memory's model; how many steps that took."""
    steps = 0
    while await memory.parts.vectors.embed_batch():
        steps += 1
    return steps


async def leave(memory: Memory) -> None:
    """As a sidecar does that ends."""
    await memory.consolidator._ownership.release()
    await memory.models.leave()


@asynccontextmanager
async def filled(make_memory: MakeMemory, model: Seeded, *contents: str, agent: str = "a") -> AsyncIterator[Memory]:
    """An open memory, which does not work by itself, with these events, embedded by the model. It leaves at the end."""
    async with make_memory(embedder=model, work=False, max_delay=600.0) as memory:
        await own(memory)
        await memory.models.beat()
        if contents:
            await write(memory, agent, *contents)
            await embed_all(memory)
        yield memory
        await leave(memory)


async def semantic(memory: Memory, query: str = "one", agent: str = "a", **more: Any) -> tuple[list[str], list[str]]:
    found = await memory.recall(agent, RecallQuery(query=query, k=7, strategy="semantic", **more))
    return [str(hit.event.content) for hit in found.hits], found.degraded


async def state_of(memory: Memory) -> dict[str, Any]:
    return {one.name: one for one in await memory.models.list()}


async def ask(stores: LocalStores, settings: Settings, statement: str) -> Any:
    """The rows of a statement, as the administrator."""
    connection = await admin_postgres(stores)
    try:
        return await connection.fetch(statement.format(schema=f'"{settings.keys.schema}"'))
    finally:
        await connection.close()


async def counts(stores: LocalStores, settings: Settings) -> dict[str, int]:
    tables = ("event_embeddings", "embedding_queue")
    return {table: (await ask(stores, settings, f"SELECT count(*) FROM {{schema}}.{table}"))[0][0] for table in tables}


INSERT = """
INSERT INTO {schema}.memory_events (agent_id, id, opening, sequence, index, at, accepted_at, fingerprint, type, content)
VALUES ('a', gen_random_uuid(), 1, 1, 0, now(), now(), 0, 'message', 'under way')
"""


async def wait_for_a_waiting_lock(session: Any) -> None:
    """Return when somebody waits for a lock that this session has."""
    statement = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    async with asyncio.timeout(10):
        while not await session.fetchval(statement):
            await asyncio.sleep(0.01)


async def test_a_new_memory_is_complete_at_once(make_memory: MakeMemory) -> None:
    async with make_memory(embedder=Seeded("one"), work=False) as memory:
        await memory.models.beat()
        (only,) = await memory.models.list()
        assert (only.kept, only.complete, only.current, only.done, only.total) == (True, True, True, 0, 0)


async def test_recall_goes_over_to_a_new_model_once_it_covers_all(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two", 12)
    async with filled(make_memory, one, *TEXTS) as old:
        await old.knowledge.put("a", NewFact(topic="t", content="a fact of before"))
        await embed_all(old)
        async with make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new:
            await new.models.beat()
            assert not (await state_of(new))["two"].current
            # Nothing of before has a vector of the new model: it says so, and words find it all the same.
            assert await semantic(new) == ([], ["back_fill"])
            found = await new.recall("a", RecallQuery(query="text 7", k=3))
            assert found.hits[0].event.content == "text 7" and found.degraded == ["back_fill"]
            assert found.not_yet_searchable == len(TEXTS)
            facts = await new.knowledge.search("a", FactQuery(query="fact"))
            assert (len(facts.hits), facts.degraded, facts.not_yet_embedded) == (1, ["back_fill"], 1)
            # The old one goes on as if nothing was.
            assert await semantic(old) == (one.ranked("one", TEXTS)[:7], [])
            await embed_all(new)
            assert await semantic(new) == (two.ranked("one", TEXTS)[:7], [])
            assert await semantic(old) == (one.ranked("one", TEXTS)[:7], [])
            assert (await new.knowledge.search("a", FactQuery(query="fact", strategy="semantic"))).degraded == []
            state = await state_of(new)
            assert (state["one"].current, state["two"].current) == (False, True)
            assert (state["two"].done, state["two"].total) == (len(TEXTS) + 1, len(TEXTS) + 1)
            assert await embed_all(new) == 0


async def test_a_part_of_the_back_fill_is_said_to_be_one(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two")
    async with filled(make_memory, one, *TEXTS):
        pass
    async with make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new:
        await new.models.beat()
        assert await parts_of(new).vectors.embed_batch() == len(TEXTS)  # looked at
        assert await parts_of(new).vectors.embed_batch() == 32
        hits, degraded = await semantic(new)
        assert degraded == ["back_fill"] and len(hits) == 7
        status = await new.status()
        (model,) = [one for one in status.models or [] if one.name == "two"]
        assert (model.done, model.total, model.complete, status.unembedded) == (32, 40, False, 0)
        # An agent all of whose events are newer lacks nothing.
        receipt = await write(new, "b", *TEXTS)
        assert await parts_of(new).vectors.embed_batch() == len(TEXTS), "what is new goes first"
        assert await semantic(new, agent="b") == (two.ranked("one", TEXTS)[:7], [])
        assert await new.state("b", receipt.position) == "searchable"
        await embed_all(new)
        assert (await semantic(new))[1] == []


async def test_what_was_not_reached_yet_is_not_searchable(make_memory: MakeMemory) -> None:
    async with filled(make_memory, Seeded("one")) as old:
        receipt = await write(old, "a", "said before")
        await embed_all(old)
        async with make_memory(embedder=Seeded("two"), work=False, instance="new", max_delay=600.0) as new:
            assert await old.state("a", receipt.position) == "searchable"
            assert await new.state("a", receipt.position) == "durable"
            await embed_all(new)
            assert await new.state("a", receipt.position) == "searchable"


async def test_two_models_at_once_both_get_what_is_new(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two", 12)
    async with (
        filled(make_memory, one, *TEXTS[:20]) as old,
        make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new,
    ):
        await new.models.beat()
        await embed_all(new)
        await write(old, "a", *TEXTS[20:])
        await new.knowledge.put("a", NewFact(topic="t", content="new"))
        for memory, model in ((old, one), (new, two)):
            await embed_all(memory)
            assert await semantic(memory) == (model.ranked("one", TEXTS)[:7], [])
            assert (await memory.status()).unembedded == 0


async def test_back_to_the_former_model_at_once_and_its_tail_is_back_filled(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two", 12)
    async with filled(make_memory, one, *TEXTS):
        pass
    async with make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new:
        await new.models.beat()
        assert not (await state_of(new))["one"].kept
        await embed_all(new)
        await write(new, "b", *TEXTS)
        await embed_all(new)
    one.seen.clear()
    async with make_memory(embedder=one, work=False, instance="again", max_delay=600.0) as back:
        await back.models.beat()
        assert await semantic(back) == (one.ranked("one", TEXTS)[:7], [])
        assert await semantic(back, agent="b") == ([], ["back_fill"])
        await embed_all(back)
        assert sorted(one.seen) == sorted(TEXTS), "the tail, and nothing else"
        assert await semantic(back, agent="b") == (one.ranked("one", TEXTS)[:7], [])
        assert (await state_of(back))["one"].current


async def test_several_sidecars_share_the_back_fill_and_one_that_is_gone_holds_nothing_up(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    texts = [f"{number}" for number in range(300)]
    async with filled(make_memory, Seeded("one"), *texts):
        pass
    models = [Seeded("two"), Seeded("two")]
    async with (
        make_memory(embedder=models[0], work=False, instance="x") as first,
        make_memory(embedder=models[1], work=False, instance="y") as second,
    ):
        await parts_of(first).vectors.embed_batch()
        # The first claims, and is never heard of again.
        assert await parts_of(first).vectors._claim(OLD[1])
        for _ in range(20):
            await parts_of(second).vectors.embed_batch()
        assert not (await state_of(second))["two"].complete
        await ask(stores, settings, "UPDATE {schema}.embedding_queue SET claimed_until = now() RETURNING 1")
        await embed_all(second)
        assert (await state_of(second))["two"].complete
        assert sorted(models[1].seen) == sorted(texts)


async def test_a_provider_that_is_down_ends_no_back_fill(make_memory: MakeMemory) -> None:
    two = Seeded("two")
    two.refuses = "text 3"
    async with filled(make_memory, Seeded("one"), *TEXTS[:10]):
        pass
    async with make_memory(embedder=two, work=False, instance="new") as new:
        await parts_of(new).vectors.embed_batch()
        two.down = True
        with pytest.raises(EmbeddingUnavailable):
            await parts_of(new).vectors.embed_batch()
        assert not (await state_of(new))["two"].complete
        two.down = False
        for _ in range(20):
            try:
                await parts_of(new).vectors.embed_batch()
            except EmbeddingUnavailable:
                continue
        assert (await state_of(new))["two"].complete
        assert (await new.status()).unembeddable == 1
        assert sorted((await semantic(new))[0]) and (await semantic(new))[1] == []


async def test_what_was_written_without_a_provider_gets_its_vectors(make_memory: MakeMemory) -> None:
    one = Seeded("one")
    async with make_memory(work=False, instance="none", max_delay=600.0) as none:
        await write(none, "a", *TEXTS[:20])
        await none.knowledge.put("a", NewFact(topic="t", content="known"))
        async with make_memory(embedder=one, work=False, instance="new") as new:
            await embed_all(new)
            assert await semantic(new) == (one.ranked("one", TEXTS[:20])[:7], [])
            # One without a provider still queues for those that have one.
            await write(none, "a", *TEXTS[20:])
            await embed_all(new)
            assert await semantic(new) == (one.ranked("one", TEXTS)[:7], [])
            assert (await new.knowledge.search("a", FactQuery(query="x", strategy="semantic"))).not_yet_embedded == 0


async def test_a_batch_that_was_under_way_when_the_model_came_is_covered(make_memory: MakeMemory) -> None:
    async with filled(make_memory, Seeded("one")) as old:
        two = Seeded("two")
        async with make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new:
            async with old.models.writing() as session:
                # As a batch does: begun before the model is kept up, committed after it asked for that.
                joining = asyncio.create_task(new.models.number())
                await wait_for_a_waiting_lock(session)
                await session.execute(INSERT.format(schema=f'"{old.settings.keys.schema}"'))
            await joining
            await new.models.claim()
            await embed_all(new)
            assert two.seen == ["under way"]
            assert (await state_of(new))["two"].complete


async def test_erasure_and_retention_reach_every_model(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with (
        filled(make_memory, Seeded("one"), *TEXTS) as old,
        make_memory(embedder=Seeded("two"), work=False, instance="new", max_delay=600.0) as new,
    ):
        await parts_of(new).vectors.embed_batch()
        await parts_of(new).vectors.embed_batch()
        await own(old)
        await old.erase("a", seconds=0)
        await old.consolidator.flush()
        left = await counts(stores, settings)
        assert left == {"event_embeddings": 0, "embedding_queue": 0}
        await embed_all(new)
        assert (await state_of(new))["two"].complete


async def test_vectors_of_a_former_model_go_when_that_is_asked_for(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    one, two = Seeded("one"), Seeded("two")
    async with (
        filled(make_memory, one, *TEXTS) as old,
        make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new,
    ):
        await new.models.beat()
        numbers = {name: model.number for name, model in (await state_of(new)).items()}
        with pytest.raises(NoModel):
            await new.models.remove(99)
        for name in ("one", "two"):
            with pytest.raises(ModelInUse):
                await new.models.remove(numbers[name])
        await embed_all(new)
        with pytest.raises(ModelInUse):
            await new.models.remove(numbers["one"])
        await leave(old)
        await new.models.beat()
        assert (await state_of(new))["one"].kept is False
        await new.models.beat()
        assert (await counts(stores, settings))["event_embeddings"] == 2 * len(TEXTS)
        await new.models.remove(numbers["one"])
        await new.models.beat()
        assert (await counts(stores, settings))["event_embeddings"] == len(TEXTS)
        assert list(await state_of(new)) == ["two"]
        assert await semantic(new) == (two.ranked("one", TEXTS)[:7], [])
        async with make_memory(embedder=one, work=False, instance="again") as back:
            assert await semantic(back) == ([], ["back_fill"])
            await embed_all(back)
            assert await semantic(back) == (one.ranked("one", TEXTS)[:7], [])


async def test_a_removal_that_is_asked_for_in_the_middle_of_another_begins_at_the_start(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmemory_engine.models._AT_ONCE", 10)
    async with filled(make_memory, Seeded("one"), *TEXTS) as first:
        await leave(first)
    async with filled(make_memory, Seeded("two")) as second:
        await embed_all(second)
        await leave(second)
    async with make_memory(embedder=Seeded("three"), work=False, instance="new") as new:
        await new.models.beat()
        await embed_all(new)
        await new.models.beat()
        numbers = {name: model.number for name, model in (await state_of(new)).items()}
        await new.models.remove(numbers["one"])
        assert await new.models._clean()
        await new.models.remove(numbers["two"])
        await new.models.beat()
        assert list(await state_of(new)) == ["three"]
        assert (await counts(stores, settings))["event_embeddings"] == len(TEXTS)


async def test_one_that_was_away_and_retired_meanwhile_knows_what_it_lacks(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two")
    async with (
        filled(make_memory, one, *TEXTS[:20]) as away,
        make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new,
    ):
        await new.models.number()
        await leave(away)
        await new.models.beat()
        await write(new, "a", *TEXTS[20:])
        hits, degraded = await semantic(away)
        assert (hits, degraded) == (one.ranked("one", TEXTS[:20])[:7], ["back_fill"])
        await away.models.beat()
        await embed_all(away)
        assert await semantic(away) == (one.ranked("one", TEXTS)[:7], [])


async def test_the_switch_leaves_a_model_that_nobody_has_any_more(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two")
    async with (
        filled(make_memory, one, *TEXTS) as old,
        make_memory(embedder=two, work=False, instance="new", max_delay=600.0) as new,
    ):
        await new.models.beat()
        await embed_all(new)
        assert (await state_of(new))["two"].current
        # A sidecar of the former model starts once more, as a pod does whose turn in a roll-out has not come yet.
        async with make_memory(embedder=one, work=False, instance="late") as late:
            await late.models.beat()
            assert (await state_of(new))["one"].current
            await late.models.leave()
        await leave(old)
        await new.models.beat()
        await new.models.beat()
        state = await state_of(new)
        assert (state["one"].kept, state["two"].current) == (False, True)


@pytest.mark.parametrize("dimensions", [1280, 1281, 4000])
async def test_vectors_may_be_long(make_memory: MakeMemory, dimensions: int) -> None:
    model = Seeded("long", dimensions)
    agent = "a" * 100
    async with filled(make_memory, model, *TEXTS[:10], agent=agent) as memory:
        assert await semantic(memory, agent=agent) == (model.ranked("one", TEXTS[:10])[:7], [])
        hybrid = await memory.recall(agent, RecallQuery(query="text 7", k=3))
        assert "text 7" in [hit.event.content for hit in hybrid.hits] and all(
            "semantic" in hit.scores for hit in hybrid.hits
        )
        await memory.knowledge.put(agent, NewFact(topic="t", content="known"))
        await embed_all(memory)
        assert (await memory.knowledge.search(agent, FactQuery(query="x", strategy="semantic"))).not_yet_embedded == 0


async def test_mode_postgres_goes_over_as_well(make_memory: MakeMemory) -> None:
    one, two = Seeded("one"), Seeded("two", 12)
    async with make_memory(embedder=one, work=False, mode="Postgres") as old:
        await record(old, "a", *TEXTS[:20])
        await embed_all(old)
        async with make_memory(embedder=two, work=False, mode="Postgres", instance="new") as new:
            await new.models.beat()
            receipt = await record(new, "a", *TEXTS[20:])
            assert (await semantic(new))[1] == ["back_fill"]
            assert await new.state("a", receipt.position) == "durable"
            assert [one.complete for one in (await new.status()).models or []] == [True, False]
            await embed_all(new)
            assert await new.state("a", receipt.position) == "searchable"
            assert await semantic(new) == (two.ranked("one", TEXTS)[:7], [])
            await embed_all(old)
            assert await semantic(old) == (one.ranked("one", TEXTS)[:7], [])
