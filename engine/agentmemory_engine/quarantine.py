"""Quarantine: what stands in the place of a document and is no JSON object is kept as it is, out of the way."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import partial
from uuid import UUID

from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.dead_letters import DeadLetters
from agentmemory_engine.errors import NoDeadLetter
from agentmemory_engine.journal import Journal, patiently
from agentmemory_engine.keys import digest_agent, document_id
from agentmemory_engine.positions import Entry
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import Tail
from agentmemory_engine.working import WRITTEN, Unreadable, WorkingMemory, fault_of

logger = logging.getLogger(__name__)


class Snapshots(ABC):
    """Makes the snapshots that cannot be read dead letters, byte for byte, each within one transaction."""

    def __init__(self, postgres: Postgres, letters: DeadLetters, settings: Settings) -> None:
        self._postgres = postgres
        self._letters = letters
        self._settings = settings

    async def take(self, agent: str) -> list[DeadLetter]:
        """Set aside what of the agent's working memory cannot be read: the document and, while it is the last, each
        snapshot.

        Raises ShardClosed, StoreUnavailable; then the same call goes on where this one ended.
        """
        ids = [*await self._keep_live(agent), *await self._keep_snapshots(agent)]
        letters = [await self._read(agent, one) for one in dict.fromkeys(ids)]
        return [letter for letter in letters if letter is not None]

    async def _keep_live(self, agent: str) -> list[UUID]:
        """What stands elsewhere than among the snapshots."""
        return []

    @abstractmethod
    async def _lock(self, session: Session, agent: str) -> None:
        """Let no erasure come in between, until the end of the transaction."""

    @abstractmethod
    async def _moved(self, session: Session, agent: str) -> None:
        """What is to be done where a snapshot has left."""

    async def _keep_snapshots(self, agent: str) -> list[UUID]:
        moved = []
        query = self._postgres.query
        async with self._postgres.transaction() as session:
            await self._lock(session, agent)
            while (row := await session.fetchrow(query("last_snapshot"), agent)) is not None:
                fault = fault_of(row["body"]) if row["kind"] == WRITTEN.encode() else None
                if fault is None:
                    break
                version = Entry(row["opening"], row["sequence"])
                identity = document_id(agent, str(version), row["body"])
                await self._keep(session, agent, identity, version, fault, row["body"])
                await session.execute(query("drop_snapshot"), agent, *version)
                moved.append(identity)
            if moved:
                await self._moved(session, agent)
        return moved

    async def _keep(
        self, session: Session, agent: str, identity: UUID, version: Entry, reason: str, body: bytes
    ) -> None:
        shard = self._settings.shard_of(agent)
        await session.execute(
            self._postgres.query("quarantine_document"),
            agent, identity, shard, *version, reason[:500], body, digest_agent(agent),
        )  # fmt: skip
        logger.warning("the document %s of shard %d cannot be read, and is a dead letter: %s", identity, shard, reason)

    async def _read(self, agent: str, identity: UUID) -> DeadLetter | None:
        try:
            return await self._letters.read(agent, identity)
        except NoDeadLetter:
            return None


class Quarantine(Snapshots):
    """As Snapshots, of the document in Redis as well.

    That is committed in Postgres first, and leaves Redis only where it is still the same: whatever happens in between,
    it is in one of them.
    """

    def __init__(
        self, postgres: Postgres, journal: Journal, working: WorkingMemory, tail: Tail, letters: DeadLetters,
        settings: Settings,
    ) -> None:  # fmt: skip
        super().__init__(postgres, letters, settings)
        self._journal = journal
        self._working = working
        self._tail = tail

    async def _lock(self, session: Session, agent: str) -> None:
        await session.execute(self._postgres.query("share_shard"), self._settings.shard_of(agent))

    async def _moved(self, session: Session, agent: str) -> None:
        """Nothing: the document is in Redis."""

    async def _keep_live(self, agent: str) -> list[UUID]:
        ids = []
        while (found := await self._working.unreadable(agent)) is not None:
            ids.append(await self._keep_document(agent, found))
            await patiently(partial(self._journal.set_aside, agent, found.value))
        return ids

    async def _keep_document(self, agent: str, found: Unreadable) -> UUID:
        version = found.version or await self._now(agent)
        identity = document_id(agent, str(found.version or ""), found.body)
        async with self._postgres.transaction() as session:
            await self._lock(session, agent)
            await self._keep(session, agent, identity, version, found.reason, found.body)
        return identity

    async def _now(self, agent: str) -> Entry:
        """A place after any erasure so far, so that it is not taken for erased, and no later than the next one."""
        read = (await patiently(lambda: self._tail.unflushed(agent))).read
        row = await self._postgres.fetchrow("shard_durable", self._settings.shard_of(agent))
        durable = Entry(row["durable_opening"], row["durable_sequence"]) if row else read
        return max(read, durable).next()
