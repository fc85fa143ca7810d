"""Vectors in Redis: of each agent a hash, by the ids of events and facts. Another model sees none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def text_of(event: StoredEvent) -> str:
    """What of an event is embedded; empty where there is nothing."""
    return searchable_text(event.content, event.payload)


class VectorStore:
    """Reads the vectors of the embedder's model, and makes the values that keep them."""

    def __init__(self, redis: Redis, settings: Settings, embedder: Embedder) -> None:
        self._redis = redis
        self._settings = settings
        self._embedder = embedder
        self.model = f"{embedder.model}/{embedder.dimensions}"

    def _mark(self, text: str) -> bytes:
        """Begins what is kept: what is of another model, or of another text under an id that came again, is none."""
        return blake2b(self.model.encode() + b"\n" + text.encode(), digest_size=_MARK).digest()

    @property
    def enabled(self) -> bool:
        return self._embedder.enabled

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    def value(self, text: str, vectors: Iterable[Vector]) -> bytes:
        """What is kept of a text with these vectors."""
        return self._mark(text) + b"".join(vectors)

    def reason(self, text: str, reason: str) -> bytes:
        """What is kept of a text that gets none."""
        return self._mark(text) + reason.encode()

    async def fetch(self, agent: str, texts: Mapping[UUID, str]) -> dict[UUID, bytes]:
        """The vectors of these that have some, one after another. Raises StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        return await self._read(self._settings.keys.vectors(shard, agent), texts)

    async def given_up(self, agent: str, texts: Mapping[UUID, str]) -> set[UUID]:
        """Those that get none. Raises StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        return set(await self._read(self._settings.keys.unembeddable(shard, agent), texts))

    async def waiting(self, agent: str, texts: Mapping[UUID, str]) -> list[UUID]:
        """Those that may still get vectors, in order. Raises StoreUnavailable."""
        found = await self.fetch(agent, texts)
        missing = {identity: text for identity, text in texts.items() if identity not in found}
        given_up = await self.given_up(agent, missing) if missing else set()
        return [identity for identity in missing if identity not in given_up]

    async def _read(self, key: str, texts: Mapping[UUID, str]) -> dict[UUID, bytes]:
        found: dict[UUID, bytes] = {}
        ids = list(texts)
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE]
            values: list[Any] = await self._redis.execute("HMGET", key, *(identity.bytes for identity in page))
            for identity, value in zip(page, values, strict=True):
                if value is not None and value.startswith(self._mark(texts[identity])):
                    found[identity] = value[_MARK:]
        return found
