"""Whose memory the stores hold: an identity record in each, which have to agree."""

from __future__ import annotations

from agentmemory_engine.connection import Connection
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis, check_identity
from agentmemory_engine.schema import check_schema
from agentmemory_engine.settings import Settings


class Identity:
    """Reads the record in Postgres once, and holds that in Redis against it at every new connection."""

    def __init__(self, redis: Redis, postgres: Postgres, settings: Settings) -> None:
        self._redis = redis
        self._postgres = postgres
        self._settings = settings
        self._known: str | None = None
        redis.verify = self._verify
        redis.verify_key = settings.keys.identity

    async def read(self) -> str:
        """The id in the identity record; the first call checks the schema.

        Raises SchemaMismatch, ForeignStore, StoreUnavailable.
        """
        if self._known is None:
            async with self._postgres.session() as session:
                self._known = await check_schema(session, self._settings)
        return self._known

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
