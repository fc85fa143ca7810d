"""Postgres as the engine uses it: few connections, opened lazily, no session state (a transaction pooler works).

Statements are prepared once a connection, unless a pooler is found in between that keeps track of no names: then each
goes without a name, and in a transaction, since another server may answer after it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from agentmemory_engine.errors import InvalidInput, SchemaMismatch, StoreUnavailable
from agentmemory_engine.logins import Credentials, Logins
from agentmemory_engine.poolers import keeps_statements
from agentmemory_engine.tls import Trust, explain_tls, make_context, trust_system

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Session = asyncpg.Connection[Any] | PoolConnectionProxy[Any]
else:
    Session = Any

logger = logging.getLogger(__name__)

UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
)
"""What is the store's own trouble, not the statement's: it is retried."""

POISON = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""SQLSTATE classes 22, 23 and 54: what Postgres refuses for the sake of a value it was given."""

OTHER_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""What says that the schema is gone, or is not the one that the statements were written for."""

_CACHE = 100
"""Statements that a connection keeps prepared, where it may."""

_TRANSACTION = """
SET LOCAL synchronous_commit = on;
SET LOCAL idle_in_transaction_session_timeout = '15s';
SET LOCAL lock_timeout = '5s';
"""


def identifier(name: str) -> str:
    """The name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a string constant of SQL, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def context_for(dsn: str, trust: Trust) -> ssl.SSLContext | None:
    """TLS as the DSN's `sslmode` and what is trusted now say; None where the DSN says all that the driver needs."""
    parameters = dict(parse_qsl(urlsplit(dsn).query))
    mode = parameters.get("sslmode")
    verifies = mode in ("verify-ca", "verify-full")
    trusted = trust() if verifies or mode == "require" else None
    if trusted is None and (not verifies or "sslrootcert" in parameters):
        return None
    context = make_context(trusted, check_name=mode == "verify-full")
    context.set_alpn_protocols(["postgresql"])
    return context


class _PlainConnection(asyncpg.Connection):
    """A connection that needs no reset when it goes back to the pool, since nothing here sets session state."""

    def get_reset_query(self) -> str:
        return ""


async def _register_vector(connection: asyncpg.Connection[Any]) -> None:
    """Let vectors pass in their binary form, as bytes: encoding each element again would cost more than the insert."""
    schema = await connection.fetchval("SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace"
                                       " WHERE t.typname = 'halfvec'")  # fmt: skip
    if schema is None:
        raise SchemaMismatch("The database has no pgvector 0.8; an administrator runs: CREATE EXTENSION vector")
    await connection.set_type_codec("halfvec", schema=schema, encoder=_same, decoder=_same, format="binary")


def aware(at: datetime) -> datetime:
    """A time as it was given: the first and the last that there are come back from the driver without their zone.

    It stores them as -infinity and infinity.
    """
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _same(value: bytes) -> bytes:
    return value


@contextmanager
def _explaining() -> Iterator[None]:
    """Whatever Postgres refuses inside the block is StoreUnavailable, SchemaMismatch or POISON."""
    try:
        yield
    except UNAVAILABLE as error:
        reason = explain_tls(error) or f"{type(error).__name__}: {error}"[:300]
        raise StoreUnavailable("postgres", reason) from error
    except OTHER_SCHEMA as error:
        raise SchemaMismatch(f"{error}; the schema is made by the operator, or by `prepare`.") from error
    except POISON:
        raise
    except (asyncpg.PostgresError, asyncpg.InternalClientError) as error:
        raise StoreUnavailable("postgres", f"{type(error).__name__}: {error}"[:300]) from error


@cache
def _load(name: str) -> str:
    return files(__package__).joinpath("queries", f"{name}.sql").read_text()


class Postgres:
    """A pool for one schema.

    `dsn` carries no password; `credentials` and `trust` are asked anew for every connection. What is trusted matters
    where the DSN's `sslmode` is `verify-ca`, `verify-full`, or `require`, which with an authority is `verify-ca`.
    """

    def __init__(
        self, dsn: str, credentials: Callable[[], Credentials], *, schema: str, size: int = 4, timeout: float = 10.0,
        trust: Trust = trust_system,
    ) -> None:  # fmt: skip
        self._dsn = dsn
        self._logins = Logins(credentials)
        self._trust = trust
        self._settled: Credentials | None = None
        """The login that every connection in the pool has, or one after it."""
        self.schema = schema
        self._size = size
        self._timeout = timeout
        self._named: bool | None = None
        """Whether statements may have names; None until a connection has shown it."""
        self._pool: asyncpg.Pool[Any] | None = None
        self._queries: dict[str, str] = {}

    def query(self, name: str, **parts: str) -> str:
        """The statement in `queries/<name>.sql`, for this schema; `parts` are what else stands in braces there."""
        key = " ".join((name, *parts.values()))
        statement = self._queries.get(key)
        if statement is None:
            statement = _load(name).replace("{schema}", identifier(self.schema))
            for part, text in parts.items():
                statement = statement.replace(f"{{{part}}}", text)
            self._queries[key] = statement
        return statement

    async def open(self) -> None:
        """Make the pool; connects only when first used."""
        self._pool = await asyncpg.create_pool(
            min_size=0, max_size=self._size, connect=self._connect, max_inactive_connection_lifetime=300.0
        )

    async def _connect(self, *_args: Any, **_kwargs: Any) -> asyncpg.Connection[Any]:
        refusals: list[asyncpg.PostgresError] = []
        for login in self._logins.candidates():
            try:
                connection = await self._connect_as(login)
            except asyncpg.PostgresError as error:
                refusals.append(error)
            else:
                self._logins.worked = login
                self._settled = self._settled or login
                return connection
        raise refusals[0]

    async def _connect_as(self, login: Credentials) -> asyncpg.Connection[Any]:
        if self._named is None:
            connection = await self._dial(login, cache=0)
            try:
                self._named = await keeps_statements(connection)
                await connection.close(timeout=self._timeout)
            finally:
                connection.terminate()
        connection = await self._dial(login, cache=_CACHE if self._named else 0)
        try:
            async with connection.transaction():
                await _register_vector(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _dial(self, login: Credentials, *, cache: int) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            self._dsn,
            user=login.username,
            password=login.password,
            ssl=context_for(self._dsn, self._trust),
            timeout=5.0,
            command_timeout=self._timeout,
            connection_class=_PlainConnection,
            server_settings={"application_name": "agentmemory"},
            statement_cache_size=cache,
        )

    async def renew(self) -> bool:
        """Move to the login of this moment where that is another one; answer whether it did.

        Sessions in progress end by themselves. Raises StoreUnavailable or SchemaMismatch; then the login before goes
        on.
        """
        login = self._logins.ask()
        if self._pool is None or self._settled in (None, login):
            return False
        with _explaining():
            await self._try(login)
            self._logins.worked = login
            await self._pool.expire_connections()
            await self._replace_idle(self._pool)
        self._settled = login
        logger.info("postgres: moved to the login %s", login.username)
        return True

    async def _try(self, login: Credentials) -> None:
        """Read with this login, apart from the pool."""
        connection = await self._connect_as(login)
        try:
            await connection.fetchrow(self.query("ping"))
        finally:
            await connection.close()

    async def _replace_idle(self, pool: asyncpg.Pool[Any]) -> None:
        """Replace what nobody uses: it would keep the login of before until someone does."""
        async with AsyncExitStack() as stack:
            for _ in range(pool.get_idle_size()):
                await stack.enter_async_context(pool.acquire(timeout=self._timeout))

    async def close(self) -> None:
        """Close the pool, cutting off what does not end by itself."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def drop(self) -> None:
        """Cut every connection off at once, for good; whoever waits for one gets StoreUnavailable."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection. Whatever Postgres refuses inside the block is StoreUnavailable, SchemaMismatch or POISON."""
        async with self._acquire() as connection:
            if self._named:
                yield connection
            else:
                async with connection.transaction():
                    yield connection

    @asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Session]:
        if self._pool is None:
            raise StoreUnavailable("postgres", "this memory is not open")
        with _explaining():
            async with self._pool.acquire(timeout=self._timeout) as connection:
                try:
                    yield connection
                except (asyncpg.ReadOnlySQLTransactionError, TimeoutError):
                    # It leads to a demoted primary, or to nobody: the next one is made anew.
                    connection.terminate()
                    raise
                except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
                    # A pooler has come in between, or keeps track of names no longer.
                    self._named = None
                    connection.terminate()
                    raise

    @asynccontextmanager
    async def transaction(self, *, first: str = "") -> AsyncIterator[Session]:
        """A connection in a transaction that commits durably, and that Postgres ends when we vanish in its middle.

        `first` is a statement to begin with, at no round trip of its own. Raises StoreUnavailable.
        """
        async with self._acquire() as connection, connection.transaction():
            await connection.execute(_TRANSACTION + first)
            yield connection

    async def fetch(self, name: str, *args: Any, **parts: str) -> list[asyncpg.Record]:
        """The rows of a named query, with its parts. Raises StoreUnavailable."""
        async with self.session() as connection:
            return await connection.fetch(self.query(name, **parts), *args)

    async def ask(self, name: str, *args: Any, **parts: str) -> list[asyncpg.Record]:
        """As `fetch`, where the arguments are a caller's own. Raises InvalidInput for one that Postgres cannot hold."""
        try:
            return await self.fetch(name, *args, **parts)
        except asyncpg.DataError as error:
            raise InvalidInput(f"A value in the request cannot be compared: {error}.") from None

    async def fetchrow(self, name: str, *args: Any, **parts: str) -> asyncpg.Record | None:
        """The first row of a named query, with its parts. Raises StoreUnavailable."""
        async with self.session() as connection:
            return await connection.fetchrow(self.query(name, **parts), *args)
