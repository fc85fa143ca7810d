"""Recall by an HNSW index: of the one agent and within the filter, never short, and it says what it is."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.approximate import Approximate
from agentmemory_engine.embedding import from_floats
from agentmemory_engine.events import Filter
from agentmemory_engine.memory import Memory
from agentmemory_engine.recall import Recall, RecallQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from agentmemory_engine.vector_index import plan_indexes, tend_indexes
from support.memories import MakeMemory, admin_postgres, parts_of
from support.seeded import Seeded

DIMENSIONS = 16
MODEL = Seeded("one", DIMENSIONS)
SHARES = {"large": 2000, "small": 40, "other": 2000}


@pytest.fixture
async def admin(stores: LocalStores) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await admin_postgres(stores)
    await connection.set_type_codec("halfvec", schema="public", encoder=bytes, decoder=bytes, format="binary")
    yield connection
    await connection.close()


class Filled:
    """Events of several agents, with vectors that are known here."""

    def __init__(self, settings: Settings) -> None:
        self.schema = f'"{settings.keys.schema}"'
        self.vectors: dict[str, dict[UUID, tuple[list[float], str]]] = {}

    async def store(self, admin: asyncpg.Connection[Any], model: int) -> None:
        generator = random.Random(7)
        rows, vectors = [], []
        now = datetime.now(UTC)
        for agent, share in SHARES.items():
            own = self.vectors[agent] = {}
            for number in range(share):
                identity, session = uuid4(), "rare" if number % 100 == 0 else "usual"
                floats = [generator.gauss(0, 1) for _ in range(DIMENSIONS)]
                own[identity] = floats, session
                rows.append((agent, identity, 1, number, now, now, 0, 0, "message", session, f"{number}"))
                vectors.append((agent, identity, model, 0, from_floats(floats)))
        columns = (
            "agent_id", "id", "opening", "sequence", "at", "accepted_at", "fingerprint", "index", "type", "session_id",
            "content",
        )  # fmt: skip
        name = self.schema.strip('"')
        await admin.copy_records_to_table("memory_events", records=rows, columns=columns, schema_name=name)
        await admin.copy_records_to_table(
            "event_embeddings", records=vectors, columns=("agent_id", "id", "model", "chunk", "embedding"),
            schema_name=name,
        )  # fmt: skip
        await admin.execute(f"ANALYZE {self.schema}.event_embeddings")

    def nearest(self, agent: str, wanted: list[float], k: int, session: str | None = None) -> list[UUID]:
        def distance(one: UUID) -> float:
            vector = self.vectors[agent][one][0]
            product = sum(a * b for a, b in zip(wanted, vector, strict=True))
            return -float(product / sum(a * a for a in vector) ** 0.5)

        known = [one for one, (_, own) in self.vectors[agent].items() if session in (None, own)]
        return sorted(known, key=distance)[:k]


def approximate_of(memory: Memory) -> Approximate:
    """What asks the index."""
    found = parts_of(memory).recall
    assert isinstance(found, Recall)
    return found._semantic._approximate


def without_a_least(memory: Memory) -> None:
    """Have the index asked however little an agent has."""
    approximate = approximate_of(memory)
    approximate.few = approximate.worth = 0


@pytest.fixture
async def memory(make_memory: MakeMemory) -> AsyncIterator[Memory]:
    async with make_memory(embedder=MODEL, work=False, index="HNSW", index_m=8, index_ef_construction=32) as memory:
        await memory.models.beat()
        without_a_least(memory)
        yield memory


@pytest.fixture
async def filled(memory: Memory, admin: asyncpg.Connection[Any], settings: Settings) -> Filled:
    found = Filled(settings)
    await found.store(admin, await memory.models.number() or 0)
    return found


async def recall(memory: Memory, agent: str, k: int = 10, **more: Any) -> tuple[list[UUID], bool]:
    """The ids, and whether the answer is approximate."""
    found = await memory.recall(agent, RecallQuery(query="one", k=k, strategy="semantic", **more))
    return [hit.event.id for hit in found.hits], found.approximate


async def test_without_the_index_it_scans(memory: Memory, filled: Filled) -> None:
    assert await recall(memory, "large") == (filled.nearest("large", MODEL.floats("one"), 10), False)


async def test_the_index_answers_within_the_filter_and_says_so(
    memory: Memory, filled: Filled, admin: asyncpg.Connection[Any]
) -> None:
    assert len(await tend_indexes(admin, memory.settings)) == 1
    wanted = MODEL.floats("one")
    found, approximate = await recall(memory, "large")
    assert approximate and len(set(found)) == 10 and set(found) <= set(filled.vectors["large"])
    assert len(set(found) & set(filled.nearest("large", wanted, 10))) >= 8
    scored = [hit.score for hit in (await memory.recall("large", RecallQuery(query="one", strategy="semantic"))).hits]
    assert scored == sorted(scored, reverse=True)
    found, _ = await recall(memory, "large", filter=Filter(session="rare"))
    assert len(found) == 10 and {filled.vectors["large"][one][1] for one in found} == {"rare"}
    # Fewer than k are there at all: a scan says so, exactly.
    assert await recall(memory, "small", k=100) == (filled.nearest("small", wanted, 100), False)
    assert await recall(memory, "large", k=50, filter=Filter(session="rare")) == (
        filled.nearest("large", wanted, 50, "rare"), False,
    )  # fmt: skip
    assert await recall(memory, "nobody") == ([], False)
    assert await recall(memory, "large", filter=Filter(session="none")) == ([], False)


async def test_what_the_index_gives_up_on_is_scanned(
    memory: Memory, filled: Filled, admin: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await tend_indexes(admin, memory.settings)
    # As in a table so large that the index stops before it comes to the few rows of an agent.
    monkeypatch.setattr("agentmemory_engine.approximate._GIVES_UP", 1)
    assert await recall(memory, "small", k=20) == (filled.nearest("small", MODEL.floats("one"), 20), False)


@pytest.mark.parametrize(("few", "worth"), [(100, 0), (0, 40)])
async def test_an_agent_with_few_vectors_or_a_small_share_is_scanned(
    memory: Memory, filled: Filled, admin: asyncpg.Connection[Any], few: int, worth: int
) -> None:
    await tend_indexes(admin, memory.settings)
    approximate = approximate_of(memory)
    approximate.few, approximate.worth = few, worth
    assert (await recall(memory, "small"))[1] is False
    assert (await recall(memory, "large"))[1] is True


async def test_the_transaction_leaves_no_setting_behind(
    memory: Memory, filled: Filled, admin: asyncpg.Connection[Any]
) -> None:
    await tend_indexes(admin, memory.settings)
    await recall(memory, "large")
    async with parts_of(memory).postgres.session() as session:
        assert await session.fetchval("SHOW enable_sort") == "on"
        assert await session.fetchval("SHOW hnsw.iterative_scan") == "off"


async def test_the_indexes_follow_what_is_declared(
    memory: Memory, make_memory: MakeMemory, filled: Filled, admin: asyncpg.Connection[Any]
) -> None:
    settings = memory.settings
    assert [step.what for step in await plan_indexes(admin, settings)] == ["makes the index event_embeddings_hnsw_1"]
    assert await tend_indexes(admin, settings) == ["makes the index event_embeddings_hnsw_1"]
    assert await tend_indexes(admin, settings) == []
    denser = replace(settings, index_m=12)
    assert len(await tend_indexes(admin, denser)) == 2, "dropped, and made with the other options"
    # One that was cut off while it was made.
    await admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass($1)",
        f"{filled.schema}.event_embeddings_hnsw_1",
    )
    assert await recall(memory, "large") == (filled.nearest("large", MODEL.floats("one"), 10), False)
    assert len(await tend_indexes(admin, denser)) == 2
    # A model that is filled has none yet.
    async with make_memory(embedder=Seeded("two", 12), work=False, instance="two") as other:
        await other.models.number()
        assert await plan_indexes(admin, denser) == []
    assert await tend_indexes(admin, replace(settings, index="Exact")) == ["drops the index event_embeddings_hnsw_1"]
    owner = await admin.fetchval("SELECT current_user")
    assert owner == "postgres"


async def test_one_process_at_a_time_makes_indexes(
    memory: Memory, filled: Filled, admin: asyncpg.Connection[Any], stores: LocalStores
) -> None:
    other = await admin_postgres(stores)
    key = f"{memory.settings.keys.schema}/indexes"
    await other.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", key)
    assert await tend_indexes(admin, memory.settings) == []
    await other.close()
    assert len(await tend_indexes(admin, memory.settings)) == 1


async def test_a_wide_vector_is_indexed_as_well(make_memory: MakeMemory, admin: asyncpg.Connection[Any]) -> None:
    model = Seeded("wide", 1400)
    async with make_memory(embedder=model, work=False, index="HNSW", max_delay=600.0) as memory:
        await memory.models.beat()
        await memory.consolidator._ownership.renew(all_of_them=True)
        await memory.consolidator.round()
        await memory.record("a", parse_turn(b'{"events": [{"content": "x"}, {"content": "y"}, {"content": "z"}]}'))
        await memory.consolidator.flush()
        while await parts_of(memory).vectors.embed_batch():
            pass
        assert len(await tend_indexes(admin, memory.settings)) == 1
        without_a_least(memory)
        found = await memory.recall("a", RecallQuery(query="one", k=2, strategy="semantic"))
        assert found.approximate
        assert [hit.event.content for hit in found.hits] == model.ranked("one", ["x", "y", "z"])[:2]
