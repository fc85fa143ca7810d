"""Real stores for the tests: one Valkey and one Postgres for all, and a memory of its own for each test."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentmemory.local import PostgresSettings
from agentmemory.local.stores import LocalStores
from agentmemory_engine.distillation import Bounds, Setup
from agentmemory_engine.embedding.none import NullEmbedder
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Credentials, Redis, RedisAddress
from agentmemory_engine.settings import Mode, Settings
from agentmemory_sidecar.config import Config
from support.memories import MakeMemory, postgres_dsn, prepare
from support.redis_places import RedisPlace, open_place
from support.sidecars import Running, make_config, write_login

_number = count(1)


@pytest.fixture(scope="session")
def stores_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stores(stores_directory: Path) -> AsyncIterator[LocalStores]:
    # Tests kill processes, not the machine: what they have written is there without being forced to the disk.
    async with LocalStores(stores_directory, postgres=PostgresSettings(extra={"fsync": "off"})) as stores:
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module with REDIS_KINDS on each of them, but for those that handle stores themselves."""
    kinds = getattr(metafunc.module, "REDIS_KINDS", None)
    own = inspect.signature(metafunc.function).parameters
    if kinds and not own.keys() & {"stores", "settings", "login"}:
        metafunc.parametrize("redis_place", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a Redis, its kind makes no difference; and what a version changes, one mode shows."""
    items[:] = [item for item in items if _kind_matters(item)]


def _kind_matters(item: pytest.Item) -> bool:
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    kinds = {"Postgres": ["valkey"], "Redis": ["valkey", "cluster"]}.get(str(params.get("mode", "Hybrid")))
    return kinds is None or params.get("redis_place", "valkey") in kinds


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_place(
    request: pytest.FixtureRequest, stores: LocalStores, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RedisPlace]:
    """Where Redis is: the embedded Valkey, unless a test is run on another kind as well."""
    async with open_place(getattr(request, "param", "valkey"), stores, tmp_path_factory.mktemp("redis")) as place:
        yield place


@pytest.fixture
async def login(stores: LocalStores, settings: Settings, redis_place: RedisPlace) -> Credentials:
    login = await prepare(stores, settings)
    await redis_place.admit(settings, login)
    return login


@pytest.fixture
def make_memory(stores: LocalStores, settings: Settings, login: Credentials, redis_place: RedisPlace) -> MakeMemory:
    """Makes a Memory that is not opened yet; keywords change its settings."""

    def make(
        *, work: bool = True, embedder: Any = None, observer: Any = None, chat: Any = None, bounds: Any = None,
        **changes: Any,
    ) -> Memory:  # fmt: skip
        changed = replace(settings, **changes)
        store = None
        if changed.mode != "Postgres":
            store = Redis(RedisAddress(url=redis_place.url, credentials=lambda: login))
        postgres = None
        if changed.mode != "Redis":
            postgres = Postgres(postgres_dsn(stores), lambda: login, schema=changed.keys.schema)
        given = embedder or NullEmbedder()
        distil = None if chat is None else Setup(chat, bounds or Bounds())
        return Memory(changed, store, postgres, given, observer, work=work, distil=distil)

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
