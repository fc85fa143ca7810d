"""The embedded stores as one thing below one directory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Container, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentmemory.local.lock import DirectoryLock
from agentmemory.local.places import erase_homes, recorded_home
from agentmemory.local.postgres import Postgres, PostgresSettings
from agentmemory.local.server import take_down_leftovers
from agentmemory.local.valkey import ADMIN, Valkey, ValkeySettings

STORES = ("redis", "postgres")


class LocalStores:
    """A Valkey and a PostgreSQL whose data, passwords and sockets stand in `directory`, one run at a time.

    `only` names the stores that are started, `redis` and `postgres` unless it says otherwise. The members `valkey` and
    `postgres` can be stopped, crashed and frozen by themselves; they come back at the same
    address with the same data.
    """

    def __init__(
        self,
        directory: Path,
        *,
        valkey: ValkeySettings | None = None,
        postgres: PostgresSettings | None = None,
        only: Container[str] = STORES,
    ) -> None:
        self.directory = directory.resolve()
        self.only = only
        self.valkey = Valkey(self.directory, valkey or ValkeySettings())
        self.postgres = Postgres(self.directory, postgres or PostgresSettings())
        self._lock = DirectoryLock(self.directory)

    @property
    def redis_url(self) -> str:
        """unix:///…/valkey.sock, without user and password. Known once started."""
        return self.valkey.url

    @property
    def redis_admin_user(self) -> str:
        """The only user of a new Valkey that may log in."""
        return ADMIN

    @property
    def redis_admin_password(self) -> str:
        """Its password. Known once started."""
        return self.valkey.admin_password

    @property
    def postgres_dsn_admin(self) -> str:
        """The superuser's DSN for database `agentmemory` over the Unix socket, without password. Known once started."""
        return self.postgres.dsn

    @property
    def postgres_admin_password(self) -> str:
        """The superuser's password. Known once started."""
        return self.postgres.admin_password

    async def start(self) -> None:
        """Start them; return when they take work.

        Raises:
            DirectoryInUse: another run holds the directory.
            LocalStoreError: one of the stores did not come up; then none runs.
        """
        await asyncio.to_thread(self.directory.mkdir, parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            servers = {"redis": self.valkey, "postgres": self.postgres}
            await _all(server.start() for name, server in servers.items() if name in self.only)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop them in good order; no effect on one that does not run."""
        try:
            await _all((self.valkey.stop(), self.postgres.stop()))
        finally:
            self._lock.release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @classmethod
    async def erase(cls, directory: Path) -> None:
        """Delete what the stores keep for `directory`, and nothing else in it; end what a crashed run left running.

        Raises:
            DirectoryInUse: a run holds the directory.
        """
        await asyncio.to_thread(_erase, directory)


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    # Each gets to its end, so that a failure of one never leaves another half-way.
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _erase(directory: Path) -> None:
    if not directory.exists():
        return
    directory = directory.resolve()
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        valkey = directory / "valkey"
        postgres = recorded_home(directory) or directory / "postgres"
        take_down_leftovers(Valkey.name, valkey / "data", valkey / "valkey.pid", signal.SIGKILL)
        take_down_leftovers(Postgres.name, postgres / "data", postgres / "data" / "postmaster.pid", signal.SIGQUIT)
        erase_homes(directory)
    finally:
        lock.release()
