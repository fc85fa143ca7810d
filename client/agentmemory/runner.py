"""A whole AgentMemory on one machine: embedded stores, and the real sidecar as a child process."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import aiohttp

from agentmemory.local import LocalStoreError, LocalStores, PostgresSettings, ValkeySettings
from agentmemory.local.places import private_directory
from agentmemory.local.postgres import SUPERUSER
from agentmemory.local.server import Command, Server, read_tail, run_to_end
from agentmemory.local.stores import STORES

HOST = "127.0.0.1"
DEFAULT_PORT = 7070
DEFAULT_OPS_PORT = 7071
DEFAULT_CONFIG = Path(__file__).with_name("local_default.yaml")
CREDENTIALS = "credentials"
INSTANCE = "local-0"
DEFAULT_MODE = "Hybrid"
STORES_OF = {"Hybrid": STORES, "Redis": ("redis",), "Postgres": ("postgres",)}
PROGRAM = "agentmemory_sidecar"
BETWEEN_LOOKS = 0.05  # seconds
READY_WITHIN = 120.0  # seconds
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class PortTaken(LocalStoreError):
    """Something listens there already."""

    def __init__(self, port: int, option: str) -> None:
        super().__init__(f"Port {port} on {HOST} is taken: stop what listens there, or choose another with --{option}.")
        self.port = port


class ConfigMissing(LocalStoreError):
    """The AgentMemory file is not there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"There is no file {path}: give the path of an AgentMemory in YAML.")


class SidecarMissing(LocalStoreError):
    """The sidecar's part of the package is not installed."""

    def __init__(self) -> None:
        super().__init__("The sidecar is not installed here: pip install 'agentmemory[local]'.")


class SidecarNotReady(LocalStoreError):
    """It runs, but does not take work."""

    def __init__(self, reason: str, log: Path) -> None:
        super().__init__(f"The sidecar is not ready after {READY_WITHIN:.0f} s: {reason}. Its log is {log}.")


class SidecarDied(LocalStoreError):
    """It ended by itself."""

    def __init__(self, log: Path, words: str) -> None:
        super().__init__(f"The sidecar ended by itself; its log is {log}. Its last words:\n{words}")


class Sidecar(Server):
    """The sidecar of one directory; `port` serves the API, `ops_port` health and metrics."""

    name: ClassVar[str] = "the sidecar"
    death_signal = signal.SIGTERM
    stop_steps: ClassVar = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 10.0))

    def __init__(self, directory: Path, port: int, ops_port: int) -> None:
        super().__init__()
        self.log = directory / "sidecar.log"
        self.environment: Mapping[str, str] = {}
        self._directory = directory
        self.port = port
        self.ops_port = ops_port
        self._reason = "it does not answer"

    async def start(self) -> None:
        """Start, and wait until it takes work.

        Raises:
            PortTaken: another process listens there.
            StoreFailed: it ended first.
            SidecarNotReady: it says what it lacks.
        """
        if not self.running:
            self.check()
        try:
            async with asyncio.timeout(READY_WITHIN):
                await super().start()
        except TimeoutError:
            raise SidecarNotReady(self._reason, self.log) from None

    def check(self) -> None:
        """See that the sidecar can be started at all.

        Raises:
            SidecarMissing: it is not installed.
            PortTaken: another process listens there.
        """
        if importlib.util.find_spec(PROGRAM) is None:
            raise SidecarMissing
        check_port(self.port, "port")
        check_port(self.ops_port, "ops-port")

    def last_words(self) -> str:
        """The end of its log."""
        return read_tail(self.log, 0)

    def command(self, verb: str, environment: Mapping[str, str]) -> Command:
        """How one of the sidecar's programs is run."""
        return Command(
            arguments=[sys.executable, "-m", PROGRAM, verb],
            cwd=self._directory,
            log=self.log,
            account=None,
            environment=environment,
        )

    def _prepare(self) -> Command:
        return self.command("serve", self.environment)

    async def _answers(self) -> bool:
        url = f"http://{HOST}:{self.ops_port}/readyz"
        try:
            async with aiohttp.ClientSession(timeout=PROBE_TIMEOUT) as session, session.get(url) as response:
                self._reason = (await response.text()).strip()
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


class LocalMemory:
    """Stores and sidecar below `directory`; an async context manager.

    Args:
        directory: holds the data, passwords, sockets and logs; one run at a time.
        config: an AgentMemory in YAML; default: the one in the package.
        port, ops_port: on 127.0.0.1.
        log_format: `text` or `json`.
        valkey, postgres: how the stores run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: Path | None = None,
        port: int = DEFAULT_PORT,
        ops_port: int = DEFAULT_OPS_PORT,
        log_format: str = "text",
        valkey: ValkeySettings | None = None,
        postgres: PostgresSettings | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.stores = LocalStores(self.directory, valkey=valkey, postgres=postgres)
        self.sidecar = Sidecar(self.directory, port, ops_port)
        self.url = f"http://{HOST}:{port}"
        self.ops_url = f"http://{HOST}:{ops_port}"
        self._config = (config or DEFAULT_CONFIG).absolute()
        self._log_format = log_format

    async def start(self) -> None:
        """Start all; return when turns are taken.

        Raises:
            LocalStoreError: a part of it did not come up; then nothing runs.
        """
        if not self._config.is_file():
            raise ConfigMissing(self._config)
        self.sidecar.check()
        await asyncio.to_thread(self.directory.mkdir, parents=True, exist_ok=True)
        self.stores.only = STORES_OF.get(await asyncio.to_thread(mode_of, self._config), STORES)
        await self.stores.start()
        try:
            await asyncio.to_thread(self._provision)
            await self.sidecar.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all in good order: the sidecar first, so that what it holds is durable."""
        try:
            await self.sidecar.stop()
        finally:
            await self.stores.stop()

    async def kill_sidecar(self) -> None:
        """Crash the sidecar: SIGKILL, with its answers still on their way; return once it is gone."""
        # Nothing is looked up first: in that time the sidecar would finish what it is at.
        os.kill(self.sidecar.pid, signal.SIGKILL)
        while self.sidecar.running:  # noqa: ASYNC110 - no event tells of a child's end on every system
            await asyncio.sleep(BETWEEN_LOOKS)

    async def start_sidecar(self) -> None:
        """Start the sidecar again; return when turns are taken."""
        await self.sidecar.start()

    async def wait_for_sidecar(self) -> None:
        """Return never.

        Raises:
            SidecarDied: once it ended by itself.
        """
        while self.sidecar.running:  # noqa: ASYNC110 - no event tells of a child's end on every system
            await asyncio.sleep(BETWEEN_LOOKS)
        raise SidecarDied(self.sidecar.log, self.sidecar.last_words())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @classmethod
    async def erase(cls, directory: Path) -> None:
        """Delete what a LocalMemory keeps in `directory`, and nothing else in it.

        Raises:
            DirectoryInUse: a run holds the directory.
        """
        await LocalStores.erase(directory)
        await asyncio.to_thread(_erase_own, directory)

    def _provision(self) -> None:
        # The administrators' passwords are for this one program; the sidecar that serves never sees them.
        environment = self._environment()
        self.sidecar.environment = environment
        admin = {
            "AGENTMEMORY_ADMIN_REDIS_USERNAME": self.stores.redis_admin_user,
            "AGENTMEMORY_ADMIN_REDIS_PASSWORD_FILE": str(self.directory / "valkey.password"),
            "AGENTMEMORY_ADMIN_POSTGRES_USERNAME": SUPERUSER,
            "AGENTMEMORY_ADMIN_POSTGRES_PASSWORD_FILE": str(self.directory / "postgres.password"),
        }
        command = self.sidecar.command("prepare", {**environment, **admin})
        run_to_end("Preparing the stores", command, signal.SIGTERM)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTMEMORY_", "PG"))}
        addresses = {}
        if "redis" in self.stores.only:
            addresses["AGENTMEMORY_REDIS_URL"] = self.stores.redis_url
        if "postgres" in self.stores.only:
            addresses["AGENTMEMORY_POSTGRES_DSN"] = self.stores.postgres_dsn_admin
        return {
            **inherited,
            **addresses,
            "AGENTMEMORY_CONFIG": str(self._config),
            "AGENTMEMORY_CREDENTIALS_DIR": str(private_directory(self.directory / CREDENTIALS)),
            "AGENTMEMORY_PORT": str(self.sidecar.port),
            "AGENTMEMORY_OPS_PORT": str(self.sidecar.ops_port),
            "AGENTMEMORY_OPS_HOST": HOST,
            "AGENTMEMORY_INSTANCE": INSTANCE,
            "AGENTMEMORY_LOG_FORMAT": self._log_format,
            # All of it is the memory of who runs it.
            "AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE": "true",
        }


def mode_of(config: Path) -> str:
    """The mode that an AgentMemory in YAML names; what is wrong with the file, the sidecar tells."""
    import yaml

    try:
        document = yaml.safe_load(config.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return DEFAULT_MODE
    spec = document.get("spec") if isinstance(document, dict) else None
    mode = spec.get("mode") if isinstance(spec, dict) else None
    return mode if isinstance(mode, str) else DEFAULT_MODE


def check_port(port: int, option: str) -> None:
    """See that nothing listens at a port of 127.0.0.1.

    Raises:
        PortTaken: something does, or the port is not for us.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise PortTaken(port, option) from None


def _erase_own(directory: Path) -> None:
    shutil.rmtree(directory / CREDENTIALS, ignore_errors=True)
    for log in directory.glob("sidecar.log*"):
        log.unlink()
