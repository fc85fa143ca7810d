"""Whose memory the stores hold: an identity record in each, which have to agree."""

from __future__ import annotations

from agentmemory_engine.connection import Connection
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis, check_identity
from agentmemory_engine.schema import check_schema
from agentmemory_engine.settings import Settings


class PostgresIdentity:
    """Reads the record in Postgres once."""

    def __init__(self, postgres: Postgres, settings: Settings) -> None:
        self._postgres = postgres
        self._settings = settings
        self._known: str | None = None

    async def read(self) -> str:
        """The id in the identity record; the first call checks the schema.

        Raises SchemaMismatch, ForeignStore, StoreUnavailable.
        """
        if self._known is None:
            async with self._postgres.session() as session:
                self._known = await check_schema(session, self._settings)
        return self._known


class Identity(PostgresIdentity):
    """Holds the record in Redis against that in Postgres at every new connection."""

    def __init__(self, redis: Redis, postgres: Postgres, settings: Settings) -> None:
        super().__init__(postgres, settings)
        self._redis = redis
        redis.verify = self._verify
        redis.verify_key = settings.keys.identity

    async def _verify(self, connection: Connection) -> None:
        """Refuse a Redis that belongs to another AgentMemory.

        While Postgres is down, one that has been given an identity is taken for ours, so that what it holds is served;
        it is compared as soon as Postgres can be asked.
        """
        key = self._settings.keys.identity
        try:
            await check_identity(connection, key, await self.read())
        except StoreUnavailable:
            if self._known is not None or not self._redis.value(await connection.send("EXISTS", key)):
                raise
