"""Dead letters: only documents that were set aside, since no other store can refuse what is accepted."""

from __future__ import annotations

import asyncio
import builtins
from datetime import datetime
from uuid import UUID

import msgspec

from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.dead_letters import is_document, no_letter
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.redis import Redis
from agentmemory_engine.settings import Settings


class LetterRow(msgspec.Struct, kw_only=True, frozen=True):
    """A document as it is kept: all that stood in its place."""

    agent: str
    id: UUID
    opening: int
    sequence: int
    reason: str
    raw: bytes
    dead_at: datetime

    @property
    def field(self) -> str:
        return field_of(self.agent, self.id)

    def letter(self, shard: int) -> DeadLetter:
        return DeadLetter(
            kind="document",
            id=self.id,
            agent=self.agent,
            position=Position(shard, Entry(self.opening, self.sequence)),
            index=0,
            reason=self.reason,
            sqlstate=None,
            raw=self.raw,
            dead_at=self.dead_at,
        )


def field_of(agent: str, letter: UUID) -> str:
    """Under which it is kept in its shard."""
    return f"{agent} {letter}"


class DeadLetters:
    """The dead letters of one memory."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    async def list(
        self, *, after: tuple[datetime, str, UUID] | None = None, limit: int = 100
    ) -> builtins.list[DeadLetter]:
        """Oldest first. Raises StoreUnavailable."""
        shards = range(self._settings.shards)
        found = await asyncio.gather(*map(self._of_shard, shards))
        letters = [row.letter(shard) for shard, rows in zip(shards, found, strict=True) for row in rows]
        letters = [letter for letter in letters if after is None or _place(letter) > after]
        return sorted(letters, key=_place)[:limit]

    async def of_agent(self, agent: str) -> builtins.list[DeadLetter]:
        """An agent's own, in the order of their positions. Raises StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        letters = [row.letter(shard) for row in await self._of_shard(shard) if row.agent == agent]
        return sorted(letters, key=lambda letter: (letter.position, letter.id))

    async def _of_shard(self, shard: int) -> builtins.list[LetterRow]:
        values = await self._redis.execute("HGETALL", self._settings.keys.letters(shard))
        return [msgspec.json.decode(value, type=LetterRow) for value in values.values()]

    async def read(self, agent: str, letter: UUID) -> DeadLetter:
        """One of them. Raises NoDeadLetter, StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        value = await self._redis.execute("HGET", self._settings.keys.letters(shard), field_of(agent, letter))
        if value is None:
            raise no_letter()
        return msgspec.json.decode(value, type=LetterRow).letter(shard)

    async def discard(self, agent: str, letter: UUID) -> None:
        """Delete one for good. Raises NoDeadLetter, StoreUnavailable."""
        key = self._settings.keys.letters(self._settings.shard_of(agent))
        if not await self._redis.execute("HDEL", key, field_of(agent, letter)):
            raise no_letter()

    async def replay(self, agent: str, letter: UUID) -> None:
        """Raises InvalidInput, since it is a document; or NoDeadLetter."""
        await self.read(agent, letter)
        raise is_document()


def _place(letter: DeadLetter) -> tuple[datetime, str, UUID]:
    return letter.dead_at, letter.agent, letter.id
