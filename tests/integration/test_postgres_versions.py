"""PostgreSQL 15 to 18, and PgBouncer in transaction mode before it: the same memory on each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from msgspec import Raw

from agentmemory.local.places import unprivileged_account
from agentmemory.local.postgres import find_binaries
from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import Receipt
from agentmemory_engine.errors import NoDocument
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import NewFact
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.redis import Credentials, Redis, RedisAddress
from agentmemory_engine.schema import migrate, provision
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from support.memories import prepare
from support.redis_cluster import free_ports
from support.servers import OtherPostgres, PgBouncer, find_pgbouncer, find_postgres
from support.sidecars import LettersEmbedder

POOLERS = {"pgbouncer-1.18": (False, None), "prepared-0": (True, 0), "prepared-100": (True, 100)}


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[15, 16, 17, 18])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OtherPostgres]:
    embedded = find_binaries(unprivileged_account())
    binaries = embedded if request.param == 18 else find_postgres(request.param)
    if binaries is None:
        pytest.skip(f"no PostgreSQL {request.param} with pgvector on this machine; `make servers` fetches one")
    server = OtherPostgres(tmp_path_factory.mktemp(f"postgres-{request.param}"), binaries, free_ports(1)[0])
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def login(stores: LocalStores, settings: Settings, server: OtherPostgres) -> Credentials:
    login = await prepare(stores, settings)
    connection = await asyncpg.connect(server.dsn, password=server.admin_password)
    await provision(connection, settings.keys.schema, login)
    applied = await migrate(connection, settings)
    assert applied
    assert await migrate(connection, settings) == []
    await connection.close()
    return login


@pytest.fixture
async def dsn(
    request: pytest.FixtureRequest, server: OtherPostgres, login: Credentials, tmp_path: Path
) -> AsyncIterator[str]:
    way = getattr(request, "param", "direct")
    if way == "direct":
        yield f"postgresql://127.0.0.1:{server.port}/agentmemory?sslmode=disable"
        return
    keeps, prepared = POOLERS[way]
    program = find_pgbouncer(keeps_statements=keeps)
    if program is None:
        pytest.skip(f"no PgBouncer {'1.21 or newer' if keeps else 'before 1.21'} here; `make servers` fetches one")
    pooler = PgBouncer(tmp_path, program, free_ports(1)[0], server, prepared)
    pooler.admit(login)
    await pooler.start()
    yield pooler.dsn
    await pooler.stop()


@pytest.fixture
def postgres(settings: Settings, login: Credentials, dsn: str) -> Postgres:
    return Postgres(dsn, lambda: login, schema=settings.keys.schema)


@pytest.fixture
async def memory(
    stores: LocalStores, settings: Settings, login: Credentials, postgres: Postgres
) -> AsyncIterator[Memory]:
    redis = Redis(RedisAddress(url=stores.redis_url, credentials=lambda: login))
    async with Memory(settings, redis, postgres, LettersEmbedder()) as memory:
        yield memory


async def say(memory: Memory, agent: str, content: str) -> Receipt:
    body = {"session": "s", "events": [{"content": content}], "working_memory": {"set": {"said": content}}}
    return await memory.record(agent, parse_turn(json.dumps(body).encode()))


async def go_round(memory: Memory) -> None:
    """A turn, its consolidation, recall, knowledge, sessions and erasure."""
    receipts = [await say(memory, "a", text) for text in ("zebra zebra", "The Überfluss of 10 \N{EURO SIGN}", "quiet")]
    await memory.wait([("a", receipt.position) for receipt in receipts], "searchable", 20)
    assert await memory.state("a", receipts[-1].position) == "searchable"
    for strategy in ("keyword", "semantic", "hybrid"):
        hits = (await memory.recall("a", RecallQuery(query="zebra", strategy=strategy, k=1))).hits
        assert [hit.event.content for hit in hits] == ["zebra zebra"]
    fact, new = await memory.knowledge.put(
        "a", NewFact(topic="prices", content="It costs 1.10", key="k", metadata={"n": Raw(b"1.50")})
    )
    assert new and (await memory.knowledge.read("a", fact.id)).metadata == b'{"n": 1.50}'
    found = await memory.knowledge.search("a", FactQuery(query="costs", strategy="keyword"))
    assert [hit.fact.id for hit in found.hits] == [fact.id]
    assert (await memory.erase("a", seconds=20)).erased is not None
    assert (await memory.timeline("a", TimelineQuery())).events == []
    with pytest.raises(NoDocument):
        await memory.read_document("a")
    assert (await memory.status()).dead_letters == 0
    assert await memory.check() == {}


async def test_a_memory_goes_round_on_every_version(memory: Memory) -> None:
    await go_round(memory)


@pytest.mark.parametrize("server", [18], indirect=True)
@pytest.mark.parametrize("dsn", POOLERS, indirect=True)
async def test_a_memory_goes_round_through_a_transaction_pooler(
    request: pytest.FixtureRequest, memory: Memory, postgres: Postgres, stores: LocalStores, settings: Settings,
    login: Credentials, dsn: str,
) -> None:  # fmt: skip
    await memory.identity()
    assert postgres._named is ("prepared-100" in request.node.name)
    redis = Redis(RedisAddress(url=stores.redis_url, credentials=lambda: login))
    beside = Postgres(dsn, lambda: login, schema=settings.keys.schema)
    async with Memory(replace(settings, instance="two"), redis, beside, LettersEmbedder()) as other:
        # Both at once, so that the servers behind the pooler are shared, and change hands.
        sides = [memory, other] * 4
        await asyncio.gather(*(say(side, f"b{number}", f"w{number}") for number, side in enumerate(sides * 5)))
        await go_round(memory)
        await go_round(other)
        pages = await asyncio.gather(*(other.timeline(f"b{number}", TimelineQuery()) for number in range(40)))
        assert [[event.content for event in page.events] for page in pages] == [[f"w{n}"] for n in range(40)]
