"""Vectors in Redis: of each agent a hash, by the ids of events and facts. A model that is another sees none of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.embedding import Embedder, Vector
from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.redis import Redis
from agentmemory_engine.settings import Settings

_PAGE = 256
_MARK = 8


def is_embeddable(event: StoredEvent) -> bool:
    """Whether there is any text to search."""
    return bool(searchable_text(event.content, event.payload))


class VectorStore:
    """Reads the vectors of the embedder's model, and makes the values that keep them."""

    def __init__(self, redis: Redis, settings: Settings, embedder: Embedder) -> None:
        self._redis = redis
        self._settings = settings
        self._embedder = embedder
        name = f"{embedder.model}/{embedder.dimensions}"
        self.model = name
        self._mark = blake2b(name.encode(), digest_size=_MARK).digest()

    @property
    def enabled(self) -> bool:
        return self._embedder.enabled

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    def value(self, vectors: Iterable[Vector]) -> bytes:
        """What is kept of an event or fact with these vectors."""
        return self._mark + b"".join(vectors)

    def reason(self, text: str) -> bytes:
        """What is kept of one that gets none."""
        return self._mark + text.encode()

    async def fetch(self, agent: str, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """The vectors of these that have some, one after another. Raises StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        return await self._read(self._settings.keys.vectors(shard, agent), ids)

    async def given_up(self, agent: str, ids: Sequence[UUID]) -> set[UUID]:
        """Those that get none. Raises StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        return set(await self._read(self._settings.keys.unembeddable(shard, agent), ids))

    async def waiting(self, agent: str, ids: Sequence[UUID]) -> list[UUID]:
        """Those that may still get vectors, in order. Raises StoreUnavailable."""
        found = await self.fetch(agent, ids)
        missing = [identity for identity in ids if identity not in found]
        given_up = await self.given_up(agent, missing) if missing else set()
        return [identity for identity in missing if identity not in given_up]

    async def _read(self, key: str, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        found: dict[UUID, bytes] = {}
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE]
            values: list[Any] = await self._redis.execute("HMGET", key, *(identity.bytes for identity in page))
            for identity, value in zip(page, values, strict=True):
                if value is not None and value.startswith(self._mark):
                    found[identity] = value[_MARK:]
        return found
