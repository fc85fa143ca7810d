"""Connections to a memory's stores, as administrator; what goes wrong is said in the words of conditions."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import asyncpg
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from agentmemory_engine.administration import open_client
from agentmemory_engine.postgres import context_for
from agentmemory_engine.redis import Credentials, RedisAddress
from agentmemory_operator.errors import Blocked, OperatorFault, Waiting
from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.work import Access

_TIMEOUT = 5.0

POSTGRES_PREAMBLE = struct.pack("!ii", 8, 80877103)
"""SSLRequest, which comes before the handshake."""


@asynccontextmanager
async def redis_admin(access: Access) -> AsyncIterator[Any]:
    """A redis.asyncio client of the administrator. Raises Waiting and Blocked."""
    client = open_client(redis_address(access, access.admin))
    try:
        await client.ping()
        yield client
    except (RedisError, OSError, TimeoutError, UnicodeError) as error:
        fault = explain_redis(error, access)
        if fault.reason == "Unreachable":
            fault = await _explain_encryption(access) or fault
        raise fault from error
    finally:
        await client.aclose()


def redis_address(access: Access, login: Credentials) -> RedisAddress:
    """The address as the engine takes it, for one login."""
    scheme = "rediss" if access.address.tls else "redis"
    url = f"{scheme}://{bracketed(access.address.host)}:{access.address.port}"
    return RedisAddress(url=url, credentials=lambda: login, trust=lambda: access.ca)


def bracketed(host: str) -> str:
    """The host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def explain_redis(error: Exception, access: Access) -> OperatorFault:
    """Why Redis cannot be used, in the words of a condition."""
    place = f"Redis at {access.address.host}:{access.address.port}"
    text = str(error)
    if isinstance(error, AuthenticationError) or text.startswith(("WRONGPASS", "NOAUTH")):
        return _login_refused(place, access)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return _certificate_refused(place, text)
    if text.startswith("NOPERM") or isinstance(error, NoPermissionError):
        return Blocked("MissingRights", f"{place} forbids what the operator needs: {text[:300]}")
    if "loading" in text.lower():
        return Waiting("Loading", f"{place} is loading its data.")
    if isinstance(error, ResponseError):
        return Blocked("RedisRefused", f"{place} refuses: {text[:300]}")
    return _unreachable(place, error, access)


async def _explain_encryption(access: Access) -> OperatorFault | None:
    """What to do where only one side speaks TLS: neither says so to the other."""
    place = f"Redis at {access.address.host}:{access.address.port}"
    if access.address.tls:
        if not await _speaks_plainly(access):
            return None
        return Blocked(
            "TLSNotSpoken", f"{place} speaks no TLS on this port; name the port on which it does (tls-port in "
            "redis.conf), or set spec.redis.external.tls to false."
        )  # fmt: skip
    if await served_certificate(access) is None:
        return None
    return Blocked("TLSRequired", f"{place} speaks nothing but TLS on this port; set spec.redis.external.tls to true.")


async def _speaks_plainly(access: Access) -> bool:
    """Whether a Redis answers without TLS, be it by asking for a password."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(access.address.host, access.address.port)
            try:
                writer.write(b"PING\r\n")
                answer = await reader.read(1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return answer in (b"+", b"-")


@asynccontextmanager
async def postgres_admin(
    access: Access, database: str | None = None, *, patience: float = 60.0
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of the administrator, with so many seconds for each statement. Raises Waiting and Blocked."""
    dsn = dsn_of(access.address, access.ssl_mode, database)
    try:
        connection = await asyncpg.connect(
            dsn, user=access.admin.username, password=access.admin.password, timeout=_TIMEOUT, command_timeout=patience,
            ssl=context_for(dsn, lambda: access.ca), server_settings={"application_name": "agentmemory-operator"},
        )  # fmt: skip
    except (asyncpg.PostgresError, OSError, TimeoutError, UnicodeError) as error:
        raise explain_postgres(error, access) from error
    try:
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise explain_postgres(error, access) from error
    finally:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


def explain_postgres(error: Exception, access: Access) -> OperatorFault:
    """Why Postgres cannot be used, in the words of a condition."""
    place = f"Postgres at {access.address.host}:{access.address.port}"
    text = f"{error} {error.__cause__ or ''}"
    if isinstance(error, asyncpg.InvalidPasswordError):
        return _login_refused(place, access)
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return Blocked(
            "AccessForbidden", f"{place} does not let the administrator's login in: {str(error)[:300]}. An "
            "administrator corrects pg_hba.conf, or the role; where it asks for encryption, set sslMode to require."
        )  # fmt: skip
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return _certificate_refused(place, text)
    if "rejected SSL upgrade" in text:
        return Blocked(
            "TLSNotSpoken", f"{place} speaks no TLS, and sslMode is {access.ssl_mode}; an administrator sets ssl = on "
            "in postgresql.conf, or set sslMode to prefer."
        )  # fmt: skip
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return Blocked(
            "DatabaseMissing", f"{place} has no database {access.address.database}; an administrator runs: "
            f'CREATE DATABASE "{access.address.database}"'
        )  # fmt: skip
    if isinstance(error, asyncpg.CannotConnectNowError):
        return Waiting("Starting", f"{place} is starting: {error}")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return Blocked("MissingRights", f"{place} forbids what the operator needs: {str(error)[:300]}")
    if isinstance(error, asyncpg.PostgresError):
        return Waiting("PostgresRefused", f"{place} refuses: {type(error).__name__}: {str(error)[:300]}")
    return _unreachable(place, error, access)


def dsn_of(address: StoreAddress, mode: str, database: str | None = None) -> str:
    """The address as the engine takes it; `mode` is libpq's sslmode."""
    name = quote(database or address.database or "", safe="")
    return f"postgresql://{bracketed(address.host)}:{address.port}/{name}?sslmode={mode}"


async def served_certificate(access: Access, *, preamble: bytes = b"") -> str | None:
    """The certificate that a store shows now, in PEM, whatever it is worth. None where there is no answer.

    Postgres wants a `preamble` before the handshake, and answers it with one byte.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(access.address.host, access.address.port)
            try:
                if preamble:
                    writer.write(preamble)
                    await reader.readexactly(1)
                await writer.start_tls(context, server_hostname=access.address.host)
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.close()
    except (OSError, TimeoutError, EOFError):
        return None
    return ssl.DER_cert_to_PEM_cert(shown) if shown else None


def _unreachable(place: str, error: Exception, access: Access) -> OperatorFault:
    """A store of the operator's own is on its way; what others run may be away for good."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")[:200]
    text = f"{place} does not answer ({said}); is it running, and is the way to it open?"
    if "." not in access.address.host and ":" not in access.address.host:
        text += f" A Service is named with its namespace: {access.address.host}.NAMESPACE.svc"
    return (Waiting if access.certificate else Blocked)("Unreachable", text)


def _login_refused(place: str, access: Access) -> Blocked:
    return Blocked(
        "LoginRefused",
        f"{place} refuses the administrator's login {access.admin.username!r}; correct the password in its Secret.",
    )


def _certificate_refused(place: str, text: str) -> Blocked:
    said = text.split("CERTIFICATE_VERIFY_FAILED]", 1)[-1].strip()[:200]
    return Blocked(
        "CertificateRefused",
        f"The certificate of {place} does not verify ({said}); put the authority that signed it into ca.crt of its "
        "Secret.",
    )
