"""Where everything is measured: embedded stores and the real sidecar, in a directory that is erased in the end."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import asyncpg

from agentmemory.local import ValkeySettings
from agentmemory.runner import LocalMemory
from agentmemory_engine.embedding import Embedder
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config, load_config
from agentmemory_sidecar.opening import make_memory
from benchmarks.placement import Pinning, usable_cores
from benchmarks.raw_http import RawHttp
from benchmarks.raw_redis import RawRedis

_MANIFEST = """\
apiVersion: agentmemory.io/v1alpha1
kind: AgentMemory
metadata: {{name: benchmark}}
spec:
  embedding: {{provider: {provider}}}
"""
_VACUUMED = ("memory_events", "event_embeddings", "embedding_queue")


class Stage:
    """One AgentMemory with the defaults of the resource, but for its embedding provider. An async context manager."""

    def __init__(self, provider: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="agentmemory-benchmarks-"))
        self._cores = usable_cores()
        manifest = self._directory / "agentmemory.yaml"
        manifest.write_text(_MANIFEST.format(provider=provider))
        self.redis_port = free_port()
        self.memory = LocalMemory(
            self._directory / "memory",
            config=manifest,
            port=free_port(),
            ops_port=free_port(),
            valkey=ValkeySettings(port=self.redis_port),
        )

    async def __aenter__(self) -> Self:
        try:
            await self.memory.start()
        except BaseException:
            await self._erase()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.memory.stop()
        finally:
            await self._erase()

    async def _erase(self) -> None:
        await LocalMemory.erase(self.memory.directory)
        await asyncio.to_thread(shutil.rmtree, self._directory)

    @property
    def scratch(self) -> Path:
        """A directory for files of a measurement."""
        return self._directory

    @property
    def pinning(self) -> Pinning:
        """Moves this process, the sidecar and the stores between cores."""
        stores = self.memory.stores
        processes = {"sidecar": self.memory.sidecar.pid, "redis": stores.valkey.pid, "postgres": stores.postgres.pid}
        return Pinning(processes, self._cores)

    def redis(self, *, over_tcp: bool = True) -> RawRedis:
        """A raw connection as the administrator; else over the Unix socket that the sidecar uses."""
        stores = self.memory.stores
        address = self.redis_port if over_tcp else stores.redis_url.removeprefix("unix://")
        return RawRedis(address, stores.redis_admin_user, stores.redis_admin_password)

    def http(self) -> RawHttp:
        """A raw connection to the sidecar."""
        return RawHttp(self.memory.sidecar.port)

    async def admin(self) -> asyncpg.Connection[Any]:
        """A connection to Postgres as the superuser."""
        stores = self.memory.stores
        return await asyncpg.connect(stores.postgres_dsn_admin, password=stores.postgres_admin_password)

    @property
    def config(self) -> Config:
        """The sidecar's own configuration, under another name as an owner of shards."""
        config, _ = load_config(self.memory.sidecar.environment)
        return replace(config, settings=replace(config.settings, instance="benchmarks"))

    @property
    def settings(self) -> Settings:
        """What the engine is told."""
        return self.config.settings

    def engine(self, embedder: Embedder, *, work: bool, **changes: Any) -> Memory:
        """A Memory in this process on the same stores, not opened yet; keywords change its settings."""
        config = self.config
        return make_memory(replace(config, settings=replace(config.settings, **changes)), embedder=embedder, work=work)

    def postgres(self, kind: type[Postgres] = Postgres) -> Postgres:
        """Postgres as the engine has it, with the sidecar's login, not opened yet."""
        config = self.config
        assert config.postgres_dsn is not None
        return kind(config.postgres_dsn, config.credentials.login("postgres"), schema=config.settings.keys.schema)

    def redis_store(self) -> Redis:
        """Redis as the engine has it, with the sidecar's login."""
        address = self.config.redis
        assert address is not None
        return Redis(address)

    async def vacuum(self) -> None:
        """What autovacuum does within minutes: without it, an index-only scan is none."""
        admin = await self.admin()
        try:
            for table in _VACUUMED:
                await admin.execute(f'VACUUM (ANALYZE) "{self.settings.keys.schema}".{table}')
        finally:
            await admin.close()


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
