"""Administration of Redis, and what a look at the stores finds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from agentmemory.local.stores import LocalStores
from agentmemory_engine.administration import drop_login, erase, open_client, set_login
from agentmemory_engine.keys import Keys
from agentmemory_engine.preflight import examine_postgres, examine_redis, problems_of
from agentmemory_engine.redis import Credentials, RedisAddress
from agentmemory_engine.settings import Settings
from support.memories import admin_postgres, admin_redis, postgres_dsn


@pytest.fixture
async def administrator(stores: LocalStores) -> AsyncIterator[Any]:
    async with open_client(address(stores, stores.redis_admin_user, stores.redis_admin_password)) as client:
        yield client


def address(stores: LocalStores, username: str, password: str) -> RedisAddress:
    return RedisAddress(url=stores.redis_url, credentials=lambda: Credentials(username, password))


async def refuses(stores: LocalStores, username: str, password: str) -> bool:
    async with open_client(address(stores, username, password)) as client:
        try:
            await client.ping()
        except RedisConnectionError as error:
            return "invalid username-password" in str(error)
    return False


async def test_a_login_reaches_its_own_keys_and_is_kept_over_a_restart(
    stores: LocalStores, administrator: Any, settings: Settings
) -> None:
    keys = settings.keys
    login = Credentials(keys.schema, "first")
    await set_login(administrator, keys, login)
    await administrator.execute_command("ACL", "SETUSER", login.username, "~foreign:*", "+flushall", ">another")
    await set_login(administrator, keys, Credentials(login.username, "second"))
    await administrator.execute_command("ACL", "LOAD")
    assert await refuses(stores, login.username, "first")
    async with open_client(address(stores, login.username, "second")) as client:
        assert await client.set(keys.identity, "mine")
        with pytest.raises(NoPermissionError):
            await client.get("foreign:key")
        with pytest.raises(NoPermissionError):
            await client.flushall()
        for _ in range(2):
            await drop_login(administrator, login.username)
    await administrator.execute_command("ACL", "LOAD")
    assert await refuses(stores, login.username, "second")
    assert await erase(administrator, keys) == 1


async def test_erasing_takes_every_key_of_the_memory_and_no_other(administrator: Any) -> None:
    name = uuid4().hex
    mine, other = Keys("test", name), Keys("test", name + "-2")
    for number in range(2500):
        await administrator.set(mine.document(number % 16, f"agent-{number}"), "x")
    await administrator.set(other.identity, "kept")
    await administrator.set(mine.prefix.replace(":", "-", 1), "kept")
    assert await erase(administrator, mine) == 2500
    assert await erase(administrator, mine) == 0
    assert await erase(administrator, other) == 1
    assert await administrator.delete(mine.prefix.replace(":", "-", 1)) == 1


async def test_a_look_at_the_embedded_stores_finds_nothing_to_change(
    stores: LocalStores, administrator: Any, settings: Settings
) -> None:
    redis = await examine_redis(administrator)
    assert (redis.flavour, redis.role, redis.eviction_policy) == ("valkey", "master", "noeviction")
    assert (redis.append_only, redis.appendfsync, redis.can_manage_users) == (True, "everysec", True)
    async with admin_redis(stores) as undecoded:
        assert await examine_redis(undecoded) == redis
    connection = await admin_postgres(stores)
    postgres = await examine_postgres(connection, settings.keys.schema)
    await connection.close()
    assert (postgres.database, postgres.username, postgres.superuser) == ("agentmemory", "postgres", True)
    assert postgres.vector_available is not None
    assert problems_of(redis) == problems_of(postgres) == []


async def test_a_login_without_rights_is_told_so(
    stores: LocalStores, administrator: Any, settings: Settings, login: Credentials
) -> None:
    async with open_client(address(stores, login.username, login.password)) as client:
        redis = await examine_redis(client)
    assert (redis.can_manage_users, redis.appendfsync, redis.username) == (False, None, None)
    assert redis.persistence == "Unknown"
    connection = await asyncpg.connect(postgres_dsn(stores), user=login.username, password=login.password)
    there, absent = [await examine_postgres(connection, name) for name in (settings.keys.schema, "absent")]
    await connection.close()
    assert (there.can_create_role, there.can_create_schema, absent.can_create_schema) == (False, True, False)
    assert there.vector_installed is not None
    assert {problem.reason for facts in (redis, absent) for problem in problems_of(facts)} == {"MissingRights"}
