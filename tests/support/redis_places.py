"""The kinds of Redis that the tests of turns, consolidation and channels run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentmemory.local.server import Command
from agentmemory.local.stores import LocalStores
from agentmemory_engine.redis import Credentials
from agentmemory_engine.settings import Settings
from support.redis_cluster import Member, RedisCluster, admit, free_ports
from support.servers import find_redis


@dataclass(frozen=True)
class RedisPlace:
    """Where a Redis is. `admit` gives a login its rights there."""

    url: str
    admit: Callable[[Settings, Credentials], Awaitable[None]]


@asynccontextmanager
async def open_place(kind: str, stores: LocalStores, directory: Path) -> AsyncIterator[RedisPlace]:
    """A running Redis of this kind: `valkey`, the embedded one, `cluster`, or `redis-` and a version.

    A test is skipped where the program is not on this machine.
    """
    if kind == "valkey":
        yield RedisPlace(stores.redis_url, _admitted)
    elif kind == "cluster":
        async with RedisCluster(directory, patience=10_000) as cluster:
            yield RedisPlace(cluster.url, lambda settings, login: admit(cluster.members, settings, login))
    else:
        program = find_redis(int(kind.removeprefix("redis-")))
        if program is None:
            pytest.skip(f"no {kind.replace('-', ' ')} on this machine; `make servers` fetches what Debian has of it")
        server = _Installed(directory / "redis", program)
        await server.start()
        try:
            yield RedisPlace(f"redis://{server.address}", lambda settings, login: admit([server], settings, login))
        finally:
            await server.kill()


async def _admitted(settings: Settings, login: Credentials) -> None:
    """The embedded one knows the login already."""


class _Installed(Member):
    """A server of its own, from another program."""

    def __init__(self, directory: Path, program: str) -> None:
        super().__init__(directory, free_ports(1)[0], None, "secret")
        self._program = program

    def _prepare(self) -> Command:
        command = super()._prepare()
        return replace(command, arguments=[self._program, *command.arguments[1:]])
