"""The writer: one batch of the journal into Postgres, in one transaction, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentmemory_engine.batches import (
    EventRow,
    count_events,
    event_columns,
    moment,
    raw_event,
    rows_of,
    session_columns,
    sessions_of,
)
from agentmemory_engine.journal import Batch, JournalEntry
from agentmemory_engine.keys import digest_agent, event_id
from agentmemory_engine.models import Models
from agentmemory_engine.positions import START, Entry
from agentmemory_engine.postgres import POISON, Postgres, Session
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Owned, lock_shard
from agentmemory_engine.tombstones import Tombstones, erasures_of, survivors
from agentmemory_engine.working import Stored, parse_stored

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeadRow:
    """An event for the dead letters, and why."""

    agent: str
    entry: JournalEntry
    index: int
    raw: bytes
    reason: str
    sqlstate: str | None
    variant: bytes = b""
    """Tells two bodies under one key apart, since the first one has the event's own id."""


@dataclass(frozen=True)
class Written:
    """What a commit did: the snapshotted version of each agent, how many events it held, how many are dead letters."""

    versions: dict[str, Entry]
    events: int
    dead: int


class BehindJournal(Exception):
    """Postgres has less than was trimmed from the journal: the shard has to be opened anew."""


class Writer:
    """One batch into Postgres."""

    def __init__(self, postgres: Postgres, settings: Settings, models: Models) -> None:
        self._postgres = postgres
        self._settings = settings
        self._models = models
        self._tombstones = Tombstones(postgres)

    async def write(
        self, owned: Owned, batch: Batch, documents: dict[str, bytes], trimmed: Entry | None, *, deadly: bool = False
    ) -> Written | None:
        """Commit a batch: erasures, events, sessions, snapshots, queue and the shard's durable entry, or nothing of it.

        None when the shard is not ours any more. `deadly` makes the whole batch dead letters unread.
        Raises BehindJournal, StoreUnavailable.
        """
        await self._tombstones.thin_out(owned.shard, erasures_of(batch.entries))
        living = survivors(batch.entries)
        rows = [] if deadly else [row for entry in living for row in rows_of(entry)]
        dead = [_deadly(entry) for entry in living] if deadly else []
        try:
            return await self._commit(owned, batch, documents, trimmed, rows, dead, bisect=False)
        except POISON:
            return await self._commit(owned, batch, documents, trimmed, rows, dead, bisect=True)

    async def _commit(
        self, owned: Owned, batch: Batch, documents: dict[str, bytes], trimmed: Entry | None, rows: list[EventRow],
        dead: list[DeadRow], *, bisect: bool,
    ) -> Written | None:  # fmt: skip
        entries = {entry.entry: entry for entry in batch.entries}
        async with self._models.writing() as session:
            durable = await lock_shard(session, self._postgres, owned)
            if durable is None:
                return None
            if trimmed is not None and trimmed > durable:
                raise BehindJournal
            await self._erase(session, owned.shard, batch)
            if bisect:
                dead = dead + await self._insert_bisecting(session, owned.shard, rows, entries)
            else:
                dead = dead + await self._insert(session, owned.shard, rows, entries)
            for letter in dead:
                await self._insert_dead(session, owned.shard, letter)
            versions = await self._snapshot(session, owned.shard, documents)
            await session.execute(self._postgres.query("raise_durable"), owned.shard, *batch.entries[-1].entry)
        return Written(versions, len(rows), len(dead))

    async def _erase(self, session: Session, shard: int, batch: Batch) -> None:
        """Carry out the erasures of a batch, in order; nothing of what they take from it is inserted after."""
        after: dict[str, Entry] = {}
        for erasure in erasures_of(batch.entries):
            since = after.get(erasure.agent, START)
            journalled = sum(
                count_events(entry)
                for entry in batch.entries
                if entry.agent == erasure.agent and since < entry.entry < erasure.entry
            )
            await self._tombstones.carry_out(session, shard, erasure, journalled=journalled)
            after[erasure.agent] = erasure.entry

    async def _insert(
        self, session: Session, shard: int, rows: Sequence[EventRow], entries: dict[Entry, JournalEntry]
    ) -> list[DeadRow]:
        """Insert events and the sessions they name; answer those whose id is there with another body."""
        if not rows:
            return []
        query = self._postgres.query
        inserted = await session.fetchval(query("insert_events"), *event_columns(rows), shard)
        sessions = sessions_of(rows)
        if sessions:
            await session.execute(query("upsert_sessions"), *session_columns(sessions))
        if inserted == len(rows):
            return []
        columns = [row.agent for row in rows], [row.id for row in rows], [row.fingerprint for row in rows]
        others = {record["id"] for record in await session.fetch(query("find_other_bodies"), *columns)}
        return [_other_body(row, entries[row.entry]) for row in rows if row.id in others]

    async def _insert_bisecting(
        self, session: Session, shard: int, rows: Sequence[EventRow], entries: dict[Entry, JournalEntry]
    ) -> list[DeadRow]:
        """Insert what can be inserted; halves narrow down to the events that cannot."""
        try:
            async with session.transaction():
                return await self._insert(session, shard, rows, entries)
        except POISON as error:
            if len(rows) == 1:
                row = rows[0]
                entry = entries[row.entry]
                raw = raw_event(entry, row.index)
                return [DeadRow(row.agent, entry, row.index, raw, str(error)[:500], error.sqlstate)]
        middle = len(rows) // 2
        first = await self._insert_bisecting(session, shard, rows[:middle], entries)
        return first + await self._insert_bisecting(session, shard, rows[middle:], entries)

    async def _insert_dead(self, session: Session, shard: int, letter: DeadRow) -> None:
        entry = letter.entry
        await session.execute(
            self._postgres.query("insert_dead_letter"),
            letter.agent, event_id(letter.agent, entry.key + letter.variant, letter.index), shard, *entry.entry,
            letter.index, entry.session, moment(entry.accepted_ms),
            int.from_bytes(entry.fingerprint, "big", signed=True), letter.reason, letter.sqlstate, letter.raw,
            digest_agent(letter.agent),
        )  # fmt: skip
        logger.warning("event %d of %d.%s became a dead letter: %s", letter.index, shard, entry.entry, letter.sqlstate)

    async def _snapshot(self, session: Session, shard: int, documents: dict[str, bytes]) -> dict[str, Entry]:
        """Keep these documents; answer the version of each agent that Postgres has after it."""
        stored = dict(_parsed(shard, documents))
        if not stored:
            return {}
        query = self._postgres.query
        await session.execute(
            query("insert_snapshots"),
            list(stored), [digest_agent(agent) for agent in stored],
            [one.version.opening for one in stored.values()], [one.version.sequence for one in stored.values()],
            [one.kind for one in stored.values()], [one.writer for one in stored.values()],
            [one.fingerprint for one in stored.values()], [one.body for one in stored.values()],
            self._settings.snapshots_kept, shard, [one.events for one in stored.values()],
        )  # fmt: skip
        hashes = [digest_agent(agent) for agent in stored]
        rows = await session.fetch(query("snapshotted"), list(stored), hashes)
        return {row["agent_id"]: Entry(row["opening"], row["sequence"]) for row in rows}


def _parsed(shard: int, documents: dict[str, bytes]) -> Iterator[tuple[str, Stored]]:
    """What is not ours is left where it is: whoever reads it has it set aside."""
    for agent, value in documents.items():
        try:
            yield agent, parse_stored(value)
        except ValueError:
            logger.warning("shard %d: what stands in the place of a document was not written by this memory", shard)


def _deadly(entry: JournalEntry) -> DeadRow:
    reason = "The worker crashed three times on this turn alone; all its events are in `raw`."
    return DeadRow(entry.agent, entry, 0, entry.events, reason, None)


def _other_body(row: EventRow, entry: JournalEntry) -> DeadRow:
    reason = "Its idempotency key had been used, longer ago than keys are remembered, for another body."
    return DeadRow(row.agent, entry, row.index, raw_event(entry, row.index), reason, None, entry.fingerprint)
