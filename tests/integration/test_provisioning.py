"""Roles and schemas, made and dropped by an administrator who is no superuser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.postgres import identifier
from agentmemory_engine.redis import Credentials
from agentmemory_engine.schema import drop_login, find_logins, migrate, provision, unprovision
from agentmemory_engine.settings import Settings
from support.memories import admin_postgres, postgres_dsn

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:
    Connection = Any
PASSWORD = "of-a-test"
ENDED = (asyncpg.AdminShutdownError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)


@pytest.fixture
async def superuser(stores: LocalStores) -> AsyncIterator[Connection]:
    connection = await admin_postgres(stores)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    yield connection
    await connection.close()


@pytest.fixture
async def administrator(stores: LocalStores, superuser: Connection) -> AsyncIterator[Connection]:
    """May make roles and schemas, and nothing else."""
    name = identifier(f"administrator_{uuid4().hex}")
    await superuser.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
    await superuser.execute(f"GRANT CREATE ON DATABASE agentmemory TO {name}")
    connection = await connect(stores, name.strip('"'))
    yield connection
    await connection.close()
    await superuser.execute(f"DROP OWNED BY {name}")
    await superuser.execute(f"DROP ROLE {name}")


async def connect(stores: LocalStores, username: str, password: str = PASSWORD) -> Connection:
    return await asyncpg.connect(postgres_dsn(stores), user=username, password=password)


async def shards(connection: Connection, settings: Settings) -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {settings.keys.schema}.shards"))


def login_of(settings: Settings, number: int) -> Credentials:
    return Credentials(f"{settings.keys.schema}_{number}", f"secret {number}")


async def roles_of(connection: Connection, settings: Settings) -> list[str]:
    rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", settings.keys.schema)
    return [row["rolname"] for row in rows]


async def test_an_administrator_who_is_no_superuser_provisions_again_and_again(
    stores: LocalStores, settings: Settings, administrator: Connection
) -> None:
    first, second = login_of(settings, 1), login_of(settings, 2)
    try:
        for login in (first, first, second):
            await provision(administrator, settings.keys.schema, login)
            await migrate(administrator, settings)
        assert await find_logins(administrator, settings.keys.schema) == [first.username, second.username]
        for login in (first, second):
            session = await connect(stores, login.username, login.password)
            assert await shards(session, settings) == settings.shards
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.execute(f"CREATE TABLE {settings.keys.schema}.mine ()")
            await session.close()
    finally:
        await unprovision(administrator, settings.keys.schema)


async def test_a_superuser_takes_over_what_another_administrator_made(
    stores: LocalStores, settings: Settings, administrator: Connection, superuser: Connection
) -> None:
    await provision(administrator, settings.keys.schema, login_of(settings, 1))
    await provision(superuser, settings.keys.schema, login_of(settings, 2))
    await migrate(superuser, settings)
    assert len(await find_logins(superuser, settings.keys.schema)) == 2
    await unprovision(superuser, settings.keys.schema)
    assert await roles_of(superuser, settings) == []


async def test_a_dropped_login_loses_its_sessions_and_the_others_keep_theirs(
    stores: LocalStores, settings: Settings, administrator: Connection
) -> None:
    schema, old, new = settings.keys.schema, login_of(settings, 1), login_of(settings, 2)
    for login in (old, new):
        await provision(administrator, schema, login)
    await migrate(administrator, settings)
    leaving = await connect(stores, old.username, old.password)
    staying = await connect(stores, new.username, new.password)
    for _ in range(2):
        await drop_login(administrator, schema, old.username)
    with pytest.raises(ENDED):
        await leaving.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await connect(stores, old.username, old.password)
    assert await shards(staying, settings) == settings.shards
    await staying.close()
    await leaving.close()
    await unprovision(administrator, schema)


async def test_no_role_is_dropped_but_a_login_of_this_schema(settings: Settings, administrator: Connection) -> None:
    await provision(administrator, settings.keys.schema, login_of(settings, 1))
    stranger = settings.keys.schema + "_stranger"
    await administrator.execute(f"CREATE ROLE {stranger} LOGIN")
    for name in (stranger, settings.keys.schema + "_owner", await administrator.fetchval("SELECT current_user")):
        await drop_login(administrator, settings.keys.schema, name)
    assert len(await roles_of(administrator, settings)) == 4
    await administrator.execute(f"DROP ROLE {stranger}")
    await unprovision(administrator, settings.keys.schema)


async def test_unprovisioning_leaves_nothing_and_touches_no_other_memory(
    stores: LocalStores, settings: Settings, administrator: Connection
) -> None:
    other = Settings(namespace=settings.namespace, name=settings.name + "-other", shards=2)
    for one in (settings, other):
        await provision(administrator, one.keys.schema, login_of(one, 1))
        await migrate(administrator, one)
    session = await connect(stores, login_of(settings, 1).username, login_of(settings, 1).password)
    for _ in range(2):
        await unprovision(administrator, settings.keys.schema)
    with pytest.raises(ENDED):
        await shards(session, settings)
    assert await roles_of(administrator, settings) == []
    found = await administrator.fetch("SELECT FROM pg_namespace WHERE nspname = $1", settings.keys.schema)
    assert found == []
    kept = await connect(stores, login_of(other, 1).username, login_of(other, 1).password)
    assert await shards(kept, other) == 2
    await kept.close()
    await session.close()
    await unprovision(administrator, other.keys.schema)
