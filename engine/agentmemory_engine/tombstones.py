"""Tombstones: how the owner of a shard carries out the erasures in its journal.

Everything of the agent at or before the erasure's entry goes, in the transaction that makes the entry durable; what
comes after it is a new life. Erasures that Redis lost after they were accepted are carried out when the shard is
opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentmemory_engine.batches import moment
from agentmemory_engine.journal import ERASED, JournalEntry
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.positions import Entry
from agentmemory_engine.postgres import Postgres, Session

_AT_ONCE = 1000
"""Events, facts or sessions deleted in one statement, so that a large agent meets no time limit."""


@dataclass(frozen=True)
class Erasure:
    """An erasure that was accepted. `documents` and `messages` left Redis at once; `key` is a digest."""

    agent: str
    entry: Entry
    key: bytes
    asked_at: datetime
    documents: int = 0
    messages: int = 0

    @classmethod
    def of_entry(cls, entry: JournalEntry) -> Erasure:
        """An erasure as it stands in the journal."""
        return cls(entry.agent, entry.entry, entry.key, moment(entry.accepted_ms), *entry.dropped)

    @classmethod
    def of_mark(cls, row: Any) -> Erasure:
        """An erasure as it is marked in Postgres until it is carried out."""
        entry = Entry(row["opening"], row["sequence"])
        return cls(row["agent_id"], entry, row["key"], row["asked_at"], row["documents"], row["messages"])

    @property
    def place(self) -> tuple[bytes, int, int]:
        """The hash of the agent, and the entry, as the statements take them."""
        return digest_agent(self.agent), *self.entry


def erasures_of(entries: Iterable[JournalEntry]) -> list[Erasure]:
    """The erasures among them, in order."""
    return [Erasure.of_entry(entry) for entry in entries if entry.change == ERASED]


def survivors(entries: Sequence[JournalEntry]) -> list[JournalEntry]:
    """The entries that no later erasure among them takes."""
    last = {erasure.agent: erasure.entry for erasure in erasures_of(entries)}
    return [entry for entry in entries if entry.agent not in last or entry.entry > last[entry.agent]]


async def lock_declared(session: Session, postgres: Postgres, agent: str) -> None:
    """Wait until nobody else writes the agent's knowledge, or marks its erasure; until the end of the transaction.

    Taken before any row: whoever locks rows first and then waits here could be waited for.
    """
    await session.execute(postgres.query("lock_knowledge"), f"{postgres.schema}/knowledge/{agent}")


class Tombstones:
    """Carries out erasures in Postgres."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def thin_out(self, shard: int, erasures: Sequence[Erasure]) -> None:
        """Delete most of what they take, in small transactions, so that the one under the shard's lock is short.

        An accepted erasure is never taken back, so that it does not matter whether the shard is still ours. Raises
        StoreUnavailable.
        """
        for erasure in erasures:
            async with self._postgres.transaction() as session:
                await self.mark(session, shard, erasure)
            while await self._delete_some(erasure) == _AT_ONCE:
                pass

    async def _delete_some(self, erasure: Erasure) -> int:
        async with self._postgres.transaction() as session:
            deleted = await self._delete_events(session, erasure, _AT_ONCE)
            if deleted:
                await session.execute(self._postgres.query("bump_revision"), [erasure.agent])
            return deleted

    async def _delete_events(self, session: Session, erasure: Erasure, limit: int | None) -> int:
        statement = self._postgres.query("erase_events")
        return int(await session.fetchval(statement, erasure.agent, *erasure.place, limit))

    async def mark(self, session: Session, shard: int, erasure: Erasure) -> None:
        """Note it, if it is not noted yet, and delete what has no position: knowledge, and sessions.

        They are written to Postgres in a request, so that what is there at the mark is from before, and what comes
        after it is a new life; no clock decides. Where a later erasure is marked already, that one did it.
        """
        await lock_declared(session, self._postgres, erasure.agent)
        query, (agent, *entry) = self._postgres.query, erasure.place
        last = await session.fetchval(
            query("mark_erasure"), erasure.agent, agent, shard, *entry, erasure.key, erasure.asked_at
        )
        while last and await session.fetchval(query("erase_declared"), erasure.agent, *erasure.place, _AT_ONCE):
            pass
        if last:
            # After the sessions, so that it sees what came with the end of one which their deletion waited for.
            await session.execute(query("erase_distillations"), erasure.agent)

    async def carry_out(self, session: Session, shard: int, erasure: Erasure, *, journalled: int) -> None:
        """Delete all at or before its entry and leave a tombstone, under the shard's lock; harmless when repeated.

        `journalled` events of the agent were in the journal and never came to Postgres.
        """
        query, (agent, *entry) = self._postgres.query, erasure.place
        await self.mark(session, shard, erasure)
        await session.execute(query("store_tombstone"), agent, shard, *entry)
        await self._delete_events(session, erasure, None)
        await session.execute(
            query("finish_erasure"),
            erasure.agent, *erasure.place, erasure.documents, erasure.messages, journalled,
        )  # fmt: skip
        await session.execute(query("bump_revision"), [erasure.agent])

    async def carry_out_at_once(self, session: Session, shard: int, erasure: Erasure) -> None:
        """Note it and carry it out, in statements that are short each, where the transaction holds up nobody else."""
        await self.mark(session, shard, erasure)
        while await self._delete_events(session, erasure, _AT_ONCE) == _AT_ONCE:
            pass
        await self.carry_out(session, shard, erasure, journalled=0)

    async def thin_out_lost(self, shard: int, found: Entry) -> None:
        """As thin_out, for the accepted erasures past `found`, the last entry that the opening of a shard found."""
        rows = await self._postgres.fetch("lost_erasures", shard, *found)
        await self.thin_out(shard, [Erasure.of_mark(row) for row in rows])

    async def carry_out_lost(self, session: Session, shard: int, found: Entry) -> None:
        """Carry them out, under the shard's lock."""
        for row in await session.fetch(self._postgres.query("lost_erasures"), shard, *found):
            await self.carry_out(session, shard, Erasure.of_mark(row), journalled=0)
