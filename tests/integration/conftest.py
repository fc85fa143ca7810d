"""Real stores for the tests: one Valkey and one Postgres for all, and a memory of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentmemory.local.stores import LocalStores
from agentmemory_engine.embedding.none import NullEmbedder
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Credentials, Redis, RedisAddress
from agentmemory_engine.settings import Mode, Settings
from agentmemory_sidecar.config import Config
from support.memories import MakeMemory, postgres_dsn, prepare
from support.sidecars import Running, make_config, write_login

_number = count(1)


@pytest.fixture(scope="session")
def stores_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stores(stores_directory: Path) -> AsyncIterator[LocalStores]:
    async with LocalStores(stores_directory) as stores:
        yield stores
    await LocalStores.erase(stores_directory)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> Mode:
    """Hybrid, unless the test asks for others: see `in_every_mode`."""
    mode: Mode = getattr(request, "param", "Hybrid")
    return mode


@pytest.fixture
def settings(mode: Mode) -> Settings:
    return Settings(
        namespace="test",
        name=f"memory-{next(_number)}",
        mode=mode,
        shards=4,
        max_delay=0.05,
        ttl=600.0,
        lease=2.0,
        instance="one",
    )


@pytest.fixture
async def login(stores: LocalStores, settings: Settings) -> Credentials:
    return await prepare(stores, settings)


@pytest.fixture
def make_memory(stores: LocalStores, settings: Settings, login: Credentials) -> MakeMemory:
    """Makes a Memory that is not opened yet; keywords change its settings."""

    def make(*, work: bool = True, embedder: Any = None, observer: Any = None, **changes: Any) -> Memory:
        changed = replace(settings, **changes)
        store = None
        if changed.mode != "Postgres":
            store = Redis(RedisAddress(url=stores.redis_url, credentials=lambda: login))
        postgres = Postgres(postgres_dsn(stores), lambda: login, schema=changed.keys.schema)
        return Memory(changed, store, postgres, embedder or NullEmbedder(), observer, work=work)

    return make


@pytest.fixture
async def memory(make_memory: MakeMemory) -> AsyncIterator[Memory]:
    """A working memory of its own for the test."""
    async with make_memory() as memory:
        yield memory


@pytest.fixture
def config(stores: LocalStores, settings: Settings, login: Credentials, tmp_path: Path) -> Config:
    """A sidecar's configuration for the test's memory, without embeddings."""
    return make_config(stores, settings, write_login(tmp_path / "credentials", login))


@pytest.fixture
async def sidecar(config: Config) -> AsyncIterator[Running]:
    """A sidecar that is ready."""
    async with Running(config) as running:
        await running.wait_until_ready()
        yield running
