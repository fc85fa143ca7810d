"""Quarantine: what stands in the place of a document and is no JSON object becomes a dead letter, in one script."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from hashlib import sha1

import msgspec

from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.errors import NoDeadLetter, ShardClosed
from agentmemory_engine.journal import patiently, run_id_of
from agentmemory_engine.keys import document_id
from agentmemory_engine.redis import Redis
from agentmemory_engine.redis_only.dead_letters import DeadLetters, LetterRow
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import Tails
from agentmemory_engine.working import Documents, Unreadable

logger = logging.getLogger(__name__)


class Quarantine:
    """Sets aside what cannot be read, byte for byte."""

    def __init__(
        self, redis: Redis, settings: Settings, openings: Openings, *, working: Documents, tail: Tails,
        letters: DeadLetters,
    ) -> None:  # fmt: skip
        self._redis = redis
        self._settings = settings
        self._openings = openings
        self._working = working
        self._tail = tail
        self._letters = letters

    async def take(self, agent: str) -> list[DeadLetter]:
        """What was set aside. Raises ShardClosed, StoreUnavailable."""
        rows: dict[str, LetterRow] = {}
        while (found := await self._working.unreadable(agent)) is not None:
            row = await self._row(agent, found)
            shard = self._settings.shard_of(agent)
            move = partial(self._move, shard, found, row)
            await patiently(partial(self._openings.opened, shard, move))
            rows[row.field] = row
        letters = []
        for row in rows.values():
            try:
                letters.append(await self._letters.read(agent, row.id))
            except NoDeadLetter:
                continue
        return letters

    async def _row(self, agent: str, found: Unreadable) -> LetterRow:
        version = found.version or (await self._tail.unflushed(agent)).read.next()
        identity = document_id(agent, str(found.version or ""), found.body)
        return LetterRow(
            agent=agent,
            id=identity,
            opening=version.opening,
            sequence=version.sequence,
            reason=found.reason[:500],
            raw=found.body,
            dead_at=datetime.now(UTC),
        )

    async def _move(self, shard: int, found: Unreadable, row: LetterRow) -> None:
        """Keep it and take it away, where it is still the same."""
        keys, connection = self._settings.keys, await self._openings.at(shard)
        names = [keys.state(shard), keys.document(shard, row.agent), keys.letters(shard)]
        digest = sha1(found.value, usedforsecurity=False).hexdigest()
        args: list[bytes | str] = [run_id_of(connection), digest, row.field, msgspec.json.encode(row)]
        moved = await self._redis.run_on(connection, load_script("log_set_aside"), names, args)
        if moved < 0:
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        if moved:
            logger.warning("the document %s of shard %d cannot be read, and is a dead letter", row.id, shard)
