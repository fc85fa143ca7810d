from __future__ import annotations

import asyncio

import asyncpg
import pytest
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import NoPermissionError, ResponseError

from agentmemory_engine.redis import Credentials
from agentmemory_operator.connections import explain_postgres, explain_redis, redis_admin
from agentmemory_operator.errors import Blocked, OperatorFault, Waiting
from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.work import Access

LOGIN = Credentials("steward", "a-secret-password")


def access(
    *, host: str = "127.0.0.1", port: int = 5432, tls: bool = False, certificate: str | None = None
) -> Access:  # fmt: skip
    address = StoreAddress(host, port, tls, "memories")
    return Access(address, LOGIN, certificate=certificate, ssl_mode="require")


@pytest.mark.parametrize(
    ("error", "kind", "reason", "says"),
    [
        (asyncpg.InvalidPasswordError("password authentication"), Blocked, "LoginRefused", "correct the password"),
        (asyncpg.InvalidAuthorizationSpecificationError('no pg_hba.conf entry for host "10.0.0.1", no encryption'),
         Blocked, "AccessForbidden", "pg_hba.conf"),
        (asyncpg.InvalidCatalogNameError("no database"), Blocked, "DatabaseMissing", 'CREATE DATABASE "memories"'),
        (asyncpg.InsufficientPrivilegeError("no CONNECT privilege"), Blocked, "MissingRights", "no CONNECT privilege"),
        (asyncpg.CannotConnectNowError("it is starting up"), Waiting, "Starting", "it is starting up"),
        (asyncpg.TooManyConnectionsError("too many clients"), Waiting, "PostgresRefused", "too many clients"),
        (ConnectionError("PostgreSQL server rejected SSL upgrade"), Blocked, "TLSNotSpoken", "sslMode is require"),
        (ConnectionRefusedError(111, "refused"), Blocked, "Unreachable", "ConnectionRefusedError: [Errno 111] refused"),
    ],
)  # fmt: skip
def test_why_postgres_cannot_be_used(error: Exception, kind: type[OperatorFault], reason: str, says: str) -> None:
    fault = explain_postgres(error, access())
    assert (type(fault), fault.reason) == (kind, reason)
    assert says in str(fault)
    assert LOGIN.password not in str(fault)


@pytest.mark.parametrize(
    ("error", "kind", "reason", "says"),
    [
        (ResponseError("WRONGPASS invalid username-password pair"), Blocked, "LoginRefused", "correct the password"),
        (NoPermissionError("no permissions to run 'acl'"), Blocked, "MissingRights", "no permissions"),
        (ResponseError("LOADING Redis is loading the dataset in memory"), Waiting, "Loading", "loading"),
        (ResponseError("MISCONF cannot save"), Blocked, "RedisRefused", "MISCONF"),
        (RedisGone("Error 111 connecting to 127.0.0.1:6379."), Blocked, "Unreachable", "Error 111"),
    ],
)
def test_why_redis_cannot_be_used(error: Exception, kind: type[OperatorFault], reason: str, says: str) -> None:
    fault = explain_redis(error, access())
    assert (type(fault), fault.reason) == (kind, reason)
    assert says in str(fault)


def test_a_store_of_ones_own_that_is_silent_is_on_its_way() -> None:
    own = access(certificate="pem")
    assert type(explain_redis(RedisGone("refused"), own)) is Waiting
    assert type(explain_postgres(OSError("refused"), own)) is Waiting


def test_a_service_is_named_with_its_namespace() -> None:
    """The operator runs in another than the memory, and would find another Service of that name, or none."""
    error = RedisGone("Name or service not known")
    assert "redis.NAMESPACE.svc" in str(explain_redis(error, access(host="redis")))
    assert "NAMESPACE" not in str(explain_redis(error, access(host="redis.team.svc")))


async def test_a_redis_that_speaks_no_tls_is_told_from_one_that_is_silent() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(6) == b"PING\r\n":
            writer.write(b"-NOAUTH Authentication required.\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Blocked) as caught:
            async with redis_admin(access(port=port, tls=True)):
                pass
    assert caught.value.reason == "TLSNotSpoken"
    with pytest.raises(Blocked) as caught:
        async with redis_admin(access(port=port, tls=True)):
            pass
    assert caught.value.reason == "Unreachable"
