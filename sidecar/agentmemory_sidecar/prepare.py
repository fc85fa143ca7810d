"""Prepare: make logins, roles, schema and the ACL user, as an administrator of both stores. Harmless when repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from agentmemory_engine.administration import make_identity, open_client, set_login
from agentmemory_engine.postgres import context_for
from agentmemory_engine.redis import Credentials, RedisAddress
from agentmemory_engine.schema import migrate, provision
from agentmemory_engine.tls import explain_tls
from agentmemory_engine.vector_index import tend_indexes
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.errors import ConfigError, GaveUp

logger = logging.getLogger(__name__)
_BETWEEN_TRIES = 0.25
_NOT_UP_YET = (
    OSError, TimeoutError, RedisConnectionError, RedisTimeoutError, asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
)  # fmt: skip


@dataclass(frozen=True)
class Administrators:
    """The logins that may make others."""

    redis: Credentials | None
    postgres: Credentials | None


def read_administrators(environment: Mapping[str, str], stores: Collection[str]) -> Administrators:
    """From AGENTMEMORY_ADMIN_{REDIS,POSTGRES}_USERNAME and …_PASSWORD_FILE, of these stores. Raises ConfigError."""
    redis, postgres = (
        _administrator(environment, store.upper()) if store in stores else None for store in ("redis", "postgres")
    )
    return Administrators(redis, postgres)


def _administrator(environment: Mapping[str, str], store: str) -> Credentials:
    names = f"AGENTMEMORY_ADMIN_{store}_USERNAME", f"AGENTMEMORY_ADMIN_{store}_PASSWORD_FILE"
    username, file = (environment.get(name) for name in names)
    if not username or not file:
        raise ConfigError(f"{names[0]} and {names[1]} are needed: the login that may make others")
    try:
        return Credentials(username, Path(file).read_text().rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{names[1]}: cannot read {file}: {type(error).__name__}") from None


async def prepare(config: Config, administrators: Administrators) -> None:
    """Leave the stores ready for a sidecar of this configuration.

    Raises ConfigError (files), GaveUp (a store that is down or refuses), and the engine's SchemaMismatch and
    ForeignStore.
    """
    try:
        created = config.credentials.create(config.settings.keys.schema + "_1", config.settings.stores)
    except OSError as error:
        raise ConfigError(f"AGENTMEMORY_CREDENTIALS_DIR: {error}") from None
    for path in created:
        logger.info("made %s", path)
    deadline = asyncio.get_running_loop().time() + config.prepare_timeout
    dsn, postgres = config.postgres_dsn, administrators.postgres
    if dsn is not None and postgres is not None:
        await _persist("Postgres", deadline, lambda: _prepare_postgres(config, dsn, postgres))
        await _tend_indexes(config, dsn, postgres)
    address, redis = config.redis, administrators.redis
    if address is not None and redis is not None:
        await _persist("Redis", deadline, lambda: _prepare_redis(config, address, redis))


async def _persist(store: str, deadline: float, step: Callable[[], Awaitable[None]]) -> None:
    """Try a step until it is done, as long as the store is not up. Raises GaveUp."""
    reason = "it does not answer"
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await step()
        except (AuthenticationError, asyncpg.InvalidAuthorizationSpecificationError):
            raise GaveUp(f"{store} refuses the administrator's login; check AGENTMEMORY_ADMIN_*") from None
        except _NOT_UP_YET as error:
            if isinstance(error.__cause__, AuthenticationError):
                raise GaveUp(f"{store} refuses the administrator's login; check AGENTMEMORY_ADMIN_*") from None
            if not isinstance(error, TimeoutError):
                reason = explain_tls(error) or explain_tls(error.__cause__ or error) or type(error).__name__
            if asyncio.get_running_loop().time() >= deadline:
                raise GaveUp(f"{store} did not come up in time: {reason}") from None
        except (RedisError, asyncpg.PostgresError) as error:
            raise GaveUp(f"{store} refuses: {type(error).__name__}: {error}") from None
        await asyncio.sleep(_BETWEEN_TRIES)


async def _connect(config: Config, dsn: str, login: Credentials) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(
        dsn,
        user=login.username,
        password=login.password,
        ssl=context_for(dsn, config.credentials.trust("postgres")),
        timeout=5.0,
    )


async def _tend_indexes(config: Config, dsn: str, login: Credentials) -> None:
    """Make or drop the indexes of vectors, however long it takes. Raises GaveUp."""
    try:
        connection = await _connect(config, dsn, login)
        try:
            await tend_indexes(connection, config.settings)
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError) as error:
        raise GaveUp(f"Postgres makes no index of vectors: {type(error).__name__}: {error}") from None


async def _prepare_postgres(config: Config, dsn: str, login: Credentials) -> None:
    connection = await _connect(config, dsn, login)
    try:
        await provision(connection, config.settings.keys.schema, config.credentials.login("postgres")())
        for migration in await migrate(connection, config.settings):
            logger.info("applied migration %04d %s", migration.version, migration.name)
    finally:
        await connection.close()


async def _prepare_redis(config: Config, address: RedisAddress, administrator: Credentials) -> None:
    async with open_client(address, administrator) as client:
        if config.settings.mode == "Redis":
            await make_identity(client, config.settings.keys, config.settings.shards)
        await set_login(client, config.settings.keys, config.credentials.login("redis")())
