"""Whose memory Redis holds: the identity record, which only who prepares the memory makes."""

from __future__ import annotations

from agentmemory_engine.connection import Connection
from agentmemory_engine.errors import ForeignStore, NotPrepared
from agentmemory_engine.identity_records import parse_identity
from agentmemory_engine.redis import Redis
from agentmemory_engine.settings import Settings


class Identity:
    """Reads the record at every new connection."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._known: bytes | None = None
        redis.verify = self._verify
        redis.verify_key = settings.keys.identity

    async def read(self) -> str:
        """The id in the identity record. Raises NotPrepared, ForeignStore, StoreUnavailable."""
        await self._redis.connection()
        assert self._known is not None
        return parse_identity(self._known.decode(), self._settings.shards)

    async def _verify(self, connection: Connection) -> None:
        key = self._settings.keys.identity
        found = self._redis.value(await connection.send("GET", key))
        if found is None and self._known is not None:
            # Redis lost everything. It was ours.
            found = self._redis.value(await connection.send("SET", key, self._known, "NX", "GET")) or self._known
        if found is None:
            raise NotPrepared("Redis holds no memory of this name; the operator makes it, or `prepare`.")
        parse_identity(found.decode(), self._settings.shards)
        if self._known not in (None, found):
            raise ForeignStore("Redis holds the memory of another AgentMemory by now; restart to go on with that.")
        self._known = found
