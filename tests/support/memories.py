"""What tests need around real stores: administrators' logins, and a prepared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import asyncpg
import pytest
import redis.asyncio

from agentmemory.local.stores import LocalStores
from agentmemory_engine.hybrid import HybridParts
from agentmemory_engine.identity_records import new_identity
from agentmemory_engine.memory import Memory
from agentmemory_engine.parts import Retaining
from agentmemory_engine.redis import Credentials
from agentmemory_engine.schema import migrate, provision
from agentmemory_engine.settings import Mode, Settings

MakeMemory = Callable[..., Memory]

with_postgres = pytest.mark.parametrize("mode", ["Hybrid", "Postgres"], indirect=True)
"""For tests of what the modes that have Postgres promise."""
in_every_mode = pytest.mark.parametrize("mode", get_args(Mode), indirect=True)
"""For tests of what all modes promise."""
with_postgres = pytest.mark.parametrize("mode", ["Hybrid", "Postgres"], indirect=True)
"""For tests of what the modes that have Postgres promise."""


def admin_redis(stores: LocalStores) -> Any:
    """The administrator's login to Valkey: a redis.asyncio.Redis, whose types know only a part of what it can do."""
    path = stores.redis_url.removeprefix("unix://")
    return redis.asyncio.Redis(
        unix_socket_path=path, username=stores.redis_admin_user, password=stores.redis_admin_password
    )


async def admin_postgres(stores: LocalStores) -> asyncpg.Connection[Any]:
    """The administrator's login to Postgres."""
    return await asyncpg.connect(stores.postgres_dsn_admin, password=stores.postgres_admin_password)


async def prepare(stores: LocalStores, settings: Settings) -> Credentials:
    """What `prepare` does for a laptop: roles and schema, and an ACL user with nothing but its own keys."""
    login = Credentials(settings.keys.schema + "_login", "secret-of-" + settings.name)
    if "postgres" in settings.stores:
        connection = await admin_postgres(stores)
        await provision(connection, settings.keys.schema, login)
        await migrate(connection, settings)
        await connection.close()
    async with admin_redis(stores) as client:
        if settings.mode == "Redis":
            await client.set(settings.keys.identity, new_identity(settings.shards), nx=True)
        rules = ["reset", "on", f">{login.password}", *settings.keys.acl()[1:]]
        await client.execute_command("ACL", "SETUSER", login.username, *rules)
        await client.execute_command("ACL", "SAVE")
    return login


def postgres_dsn(stores: LocalStores) -> str:
    """The DSN without a user, as a sidecar gets it."""
    return stores.postgres_dsn_admin.replace("postgres@", "", 1)


def parts_of(memory: Memory) -> HybridParts:
    """What a memory in mode Hybrid is made of."""
    assert isinstance(memory.parts, HybridParts)
    return memory.parts


async def consolidate(memory: Memory) -> None:
    """Make durable what is not so at once in its mode."""
    if memory.parts.consolidator is not None:
        await memory.parts.consolidator.flush()


def retention_of(memory: Memory) -> Retaining:
    """What lets go of old events, in a memory that does."""
    assert memory.parts.retention is not None
    return memory.parts.retention
