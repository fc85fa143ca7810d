"""Postgres as the engine uses it: few connections, opened lazily, no session state (a transaction pooler works)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import asyncpg

from agentmemory_engine.errors import InvalidInput, SchemaMismatch, StoreUnavailable
from agentmemory_engine.redis import Credentials

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Session = asyncpg.Connection[Any] | PoolConnectionProxy[Any]
else:
    Session = Any

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


_TRANSACTION = """
SET LOCAL synchronous_commit = on;
SET LOCAL idle_in_transaction_session_timeout = '15s';
"""


def identifier(name: str) -> str:
    """The name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a string constant of SQL, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


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


def _same(value: bytes) -> bytes:
    return value


@cache
def _load(name: str) -> str:
    return files(__package__).joinpath("queries", f"{name}.sql").read_text()


class Postgres:
    """A pool for one schema.

    `dsn` carries no password; `credentials` is asked anew for every connection.
    """

    def __init__(
        self, dsn: str, credentials: Callable[[], Credentials], *, schema: str, size: int = 4, timeout: float = 10.0
    ) -> None:
        self._dsn = dsn
        self._credentials = credentials
        self.schema = schema
        self._size = size
        self._timeout = timeout
        self._pool: asyncpg.Pool[Any] | None = None
        self._queries: dict[str, str] = {}

    def query(self, name: str) -> str:
        """The statement in `queries/<name>.sql`, for this schema."""
        statement = self._queries.get(name)
        if statement is None:
            statement = self._queries[name] = _load(name).replace("{schema}", identifier(self.schema))
        return statement

    async def open(self) -> None:
        """Make the pool; connects only when first used."""
        self._pool = await asyncpg.create_pool(
            min_size=0, max_size=self._size, connect=self._connect, max_inactive_connection_lifetime=300.0
        )

    async def _connect(self, *_args: Any, **_kwargs: Any) -> asyncpg.Connection[Any]:
        login = self._credentials()
        connection = await asyncpg.connect(
            self._dsn,
            user=login.username,
            password=login.password,
            timeout=5.0,
            command_timeout=self._timeout,
            connection_class=_PlainConnection,
            server_settings={"application_name": "agentmemory"},
        )
        try:
            await _register_vector(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

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
        if self._pool is None:
            raise StoreUnavailable("postgres", "this memory is not open")
        try:
            async with self._pool.acquire(timeout=self._timeout) as connection:
                try:
                    yield connection
                except (asyncpg.ReadOnlySQLTransactionError, TimeoutError):
                    # It leads to a demoted primary, or to nobody: the next one is made anew.
                    connection.terminate()
                    raise
        except UNAVAILABLE as error:
            raise StoreUnavailable("postgres", f"{type(error).__name__}: {error}"[:300]) from error
        except OTHER_SCHEMA as error:
            raise SchemaMismatch(f"{error}; the schema is made by the operator, or by `prepare`.") from error
        except POISON:
            raise
        except (asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            raise StoreUnavailable("postgres", f"{type(error).__name__}: {error}"[:300]) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A connection in a transaction that commits durably, and that Postgres ends when we vanish in its middle.

        Raises StoreUnavailable.
        """
        async with self.session() as connection, connection.transaction():
            await connection.execute(_TRANSACTION)
            yield connection

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of a named query. Raises StoreUnavailable."""
        async with self.session() as connection:
            return await connection.fetch(self.query(name), *args)

    async def ask(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """As `fetch`, where the arguments are a caller's own. Raises InvalidInput for one that Postgres cannot hold."""
        try:
            return await self.fetch(name, *args)
        except asyncpg.DataError as error:
            raise InvalidInput(f"A value in the request cannot be compared: {error}.") from None

    async def fetchrow(self, name: str, *args: Any) -> asyncpg.Record | None:
        """The first row of a named query. Raises StoreUnavailable."""
        async with self.session() as connection:
            return await connection.fetchrow(self.query(name), *args)
