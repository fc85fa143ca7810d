"""Sidecars as processes of their own on embedded stores, for tests that kill them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from agentmemory.local.stores import LocalStores
from agentmemory.local.valkey import ValkeySettings
from support.memories import postgres_dsn

MANIFEST = """\
apiVersion: agentmemory.io/v1alpha1
kind: AgentMemory
metadata: {name: fleet, namespace: test}
spec:
  shards: 4
  workingMemory: {ttl: 1h}
  consolidation: {maxDelay: 100ms, batchSize: 32}
  embedding: {provider: None}
"""


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class SidecarProcess:
    """One sidecar; comes back on the same ports under the same instance name."""

    def __init__(self, directory: Path, instance: str, environment: dict[str, str]) -> None:
        self.port, ops_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ops_url = f"http://127.0.0.1:{ops_port}"
        self._log = directory / f"{instance}.log"
        own = {"AGENTMEMORY_PORT": self.port, "AGENTMEMORY_OPS_PORT": ops_port, "AGENTMEMORY_INSTANCE": instance}
        self._environment = environment | {name: str(value) for name, value in own.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            arguments = [sys.executable, "-m", "agentmemory_sidecar", "serve"]
            self._process = subprocess.Popen(arguments, env=self._environment, stdout=log, stderr=log)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

    async def kill(self) -> None:
        await asyncio.to_thread(self._end, signal.SIGKILL)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; answers the exit status."""
        return await asyncio.to_thread(self._end, number)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Fleet:
    """Stores, and sidecars that share one AgentMemory."""

    def __init__(self, stores: LocalStores, directory: Path, sidecars: int) -> None:
        self.stores = stores
        self._directory = directory
        manifest = directory / "agentmemory.yaml"
        manifest.write_text(MANIFEST)
        self.environment = os.environ | {
            "AGENTMEMORY_CONFIG": str(manifest),
            "AGENTMEMORY_REDIS_URL": stores.redis_url,
            "AGENTMEMORY_POSTGRES_DSN": postgres_dsn(stores),
            "AGENTMEMORY_CREDENTIALS_DIR": str(directory / "credentials"),
            "AGENTMEMORY_OPS_HOST": "127.0.0.1",
            "AGENTMEMORY_LEASE": "1",
        }
        self.sidecars = [SidecarProcess(directory, f"sidecar-{n}", self.environment) for n in range(sidecars)]

    async def prepare(self) -> None:
        """Make the logins, the schema and the ACL user."""
        redis_password, postgres_password = self._directory / "redis.admin", self._directory / "postgres.admin"
        redis_password.write_text(self.stores.redis_admin_password)
        postgres_password.write_text(self.stores.postgres_admin_password)
        (self._directory / "credentials").mkdir(mode=0o700)
        environment = self.environment | {
            "AGENTMEMORY_ADMIN_REDIS_USERNAME": self.stores.redis_admin_user,
            "AGENTMEMORY_ADMIN_REDIS_PASSWORD_FILE": str(redis_password),
            "AGENTMEMORY_ADMIN_POSTGRES_USERNAME": "postgres",
            "AGENTMEMORY_ADMIN_POSTGRES_PASSWORD_FILE": str(postgres_password),
        }
        arguments = [sys.executable, "-m", "agentmemory_sidecar", "prepare"]
        await asyncio.to_thread(subprocess.run, arguments, env=environment, check=True)

    async def wait_until_ready(self) -> None:
        """Until every sidecar says that it is."""
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            for sidecar in self.sidecars:
                while not await _is_ready(session, sidecar):
                    assert sidecar.running, "a sidecar ended by itself"
                    await asyncio.sleep(0.05)


async def _is_ready(session: aiohttp.ClientSession, sidecar: SidecarProcess) -> bool:
    try:
        async with session.get(f"{sidecar.ops_url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def open_fleet(directory: Path, *, sidecars: int, valkey: ValkeySettings) -> AsyncIterator[Fleet]:
    """Stores of their own and ready sidecars; all ended in the end."""
    async with LocalStores(directory / "stores", valkey=valkey) as stores:
        fleet = Fleet(stores, directory, sidecars)
        await fleet.prepare()
        try:
            for sidecar in fleet.sidecars:
                sidecar.start()
            await fleet.wait_until_ready()
            yield fleet
        finally:
            for sidecar in fleet.sidecars:
                if sidecar.running:
                    await sidecar.kill()
    await LocalStores.erase(directory / "stores")
