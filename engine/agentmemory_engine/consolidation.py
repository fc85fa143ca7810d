"""Consolidation: one owner a shard moves its journal into Postgres, in order.

A batch is read under one opening, committed in one transaction that is fenced by epoch and opening, and settled in
Redis after that. A commit whose answer was lost is done again, and inserts nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentmemory_engine.batches import (
    EventRow,
    batch_limit,
    event_columns,
    is_deadly,
    lease_milliseconds,
    moment,
    raw_event,
    rows_of,
    sessions_of,
)
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.journal import Batch, Journal, JournalEntry, Probe
from agentmemory_engine.keys import digest_agent, event_id
from agentmemory_engine.observer import Observer
from agentmemory_engine.positions import START, Entry
from agentmemory_engine.postgres import POISON, Postgres, Session
from agentmemory_engine.progress import Progress
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Opener, Owned, Ownership, lock_shard
from agentmemory_engine.working import Stored, parse_stored

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""Shards consolidated at the same time: some of the few connections to Postgres stay free for reads."""


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

    def __init__(self, postgres: Postgres, settings: Settings, *, embed: bool) -> None:
        self._postgres = postgres
        self._settings = settings
        self._embed = embed

    async def write(
        self, owned: Owned, batch: Batch, documents: dict[str, bytes], trimmed: Entry | None, *, deadly: bool = False
    ) -> Written | None:
        """Commit a batch: events, sessions, snapshots, queue and the shard's durable entry, or nothing of it.

        None when the shard is not ours any more. `deadly` makes the whole batch dead letters unread.
        Raises BehindJournal, StoreUnavailable.
        """
        rows = [] if deadly else [row for entry in batch.entries for row in rows_of(entry)]
        dead = [_deadly(entry) for entry in batch.entries] if deadly else []
        try:
            return await self._commit(owned, batch, documents, trimmed, rows, dead, bisect=False)
        except POISON:
            return await self._commit(owned, batch, documents, trimmed, rows, dead, bisect=True)

    async def _commit(
        self, owned: Owned, batch: Batch, documents: dict[str, bytes], trimmed: Entry | None, rows: list[EventRow],
        dead: list[DeadRow], *, bisect: bool,
    ) -> Written | None:  # fmt: skip
        entries = {entry.entry: entry for entry in batch.entries}
        async with self._postgres.transaction() as session:
            durable = await lock_shard(session, self._postgres, owned)
            if durable is None:
                return None
            if trimmed is not None and trimmed > durable:
                raise BehindJournal
            if bisect:
                dead = dead + await self._insert_bisecting(session, owned.shard, rows, entries)
            else:
                dead = dead + await self._insert(session, owned.shard, rows, entries)
            for letter in dead:
                await self._insert_dead(session, owned.shard, letter)
            versions = await self._snapshot(session, owned.shard, documents)
            await session.execute(self._postgres.query("raise_durable"), owned.shard, *batch.entries[-1].entry)
        return Written(versions, len(rows), len(dead))

    async def _insert(
        self, session: Session, shard: int, rows: Sequence[EventRow], entries: dict[Entry, JournalEntry]
    ) -> list[DeadRow]:
        """Insert events and the sessions they name; answer those whose id is there with another body."""
        if not rows:
            return []
        query = self._postgres.query
        inserted = await session.fetchval(query("insert_events"), *event_columns(rows), shard, self._embed)
        sessions = sessions_of(rows)
        if sessions:
            await session.execute(
                query("upsert_sessions"),
                [row.agent for row in sessions], [row.session for row in sessions],
                [row.first_at for row in sessions], [row.last_at for row in sessions],
            )  # fmt: skip
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
        stored: dict[str, Stored] = {agent: parse_stored(body) for agent, body in documents.items()}
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
        rows = await session.fetch(query("snapshotted"), list(stored))
        return {row["agent_id"]: Entry(row["opening"], row["sequence"]) for row in rows}


def _deadly(entry: JournalEntry) -> DeadRow:
    reason = "The worker crashed three times on this turn alone; all its events are in `raw`."
    return DeadRow(entry.agent, entry, 0, entry.events, reason, None)


def _other_body(row: EventRow, entry: JournalEntry) -> DeadRow:
    reason = "Its idempotency key had been used, longer ago than keys are remembered, for another body."
    return DeadRow(row.agent, entry, row.index, raw_event(entry, row.index), reason, None, entry.fingerprint)


class Consolidator:
    """The worker: owns shards, opens them, and consolidates each when a batch is full or old enough."""

    def __init__(
        self, journal: Journal, opener: Opener, ownership: Ownership, writer: Writer, settings: Settings,
        observer: Observer, progress: Progress,
    ) -> None:  # fmt: skip
        self._journal = journal
        self._opener = opener
        self._ownership = ownership
        self._writer = writer
        self._settings = settings
        self._observer = observer
        self._nudge = asyncio.Event()
        self._hurried: set[int] = set()
        self._tick = min(0.25, max(0.02, settings.max_delay / 10))
        self._progress = progress
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._deadline = 0.0
        self._pending_since: dict[int, float] = {}
        self.last_success: float | None = None
        """When a round last went through all owned shards without a failure (seconds since 1970)."""

    @property
    def owned(self) -> dict[int, Owned]:
        return self._ownership.owned

    def hurry(self, shard: int) -> None:
        """Consolidate this shard now, if it is ours, instead of waiting for its batch to fill or age."""
        self._hurried.add(shard)
        self._nudge.set()

    def wake(self) -> None:
        """Look at the shards now."""
        self._nudge.set()

    async def run(self) -> None:
        """Work until cancelled. A store that is down is waited for, with a growing pause."""
        heartbeat = asyncio.create_task(self._keep_alive(), name="leases")
        try:
            await self._work()
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease / 3)
            try:
                await self._ownership.keep_alive()
            except Unavailable as error:
                logger.debug("the leases are not renewed: %s", error)

    async def _work(self) -> None:
        renewed = 0.0
        pause = self._tick
        while True:
            try:
                if self._ownership.stale or time.monotonic() - renewed >= self._settings.lease / 3:
                    await self._journal.refresh()
                    await self._ownership.renew()
                    renewed = time.monotonic()
                if await self.round():
                    self.last_success = time.time()
                    pause = self._tick
                else:
                    pause = min(pause * 2, 2.0)
            except Unavailable as error:
                self._observer.failed("consolidation")
                logger.warning("consolidation waits: %s", error)
                pause = min(pause * 2, 2.0)
            except Exception:
                self._observer.failed("consolidation")
                logger.exception("consolidation failed; the journal keeps what is pending, and it is tried again")
                pause = min(pause * 2, 2.0)
            await self._rest(pause)

    async def _rest(self, pause: float) -> None:
        self._nudge.clear()
        try:
            async with asyncio.timeout(pause):
                await self._nudge.wait()
        except TimeoutError:
            return

    async def round(self) -> bool:
        """Look at every owned shard once; whether we failed on none by our own fault. Raises StoreUnavailable."""
        owned = list(self._ownership.owned.values())
        self._deadline = time.monotonic() + max(self._settings.lease / 3, self._tick)
        probes = await asyncio.gather(*(self._journal.probe(one.shard) for one in owned))
        results = await asyncio.gather(
            *(self._tend(one, probe) for one, probe in zip(owned, probes, strict=True)), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return all(results)

    async def _tend(self, owned: Owned, probe: Probe) -> bool:
        """Do what one shard needs. One that we fail on is taken anew, which counts as an attempt at its head."""
        waited = self._waited(owned.shard, probe)
        try:
            async with self._turns:
                if needs_opening(owned, probe):
                    await self._open(owned)
                elif owned.shard in self._hurried or is_due(probe, self._settings, waited):
                    self._hurried.discard(owned.shard)
                    await self._consolidate(owned)
        except Unavailable:
            raise
        except Exception:
            self._observer.failed("consolidation")
            logger.exception("consolidation of shard %d failed; its journal keeps what is pending", owned.shard)
            self._ownership.forget(owned.shard)
            return False
        return True

    def _waited(self, shard: int, probe: Probe) -> float:
        """Seconds for which we have seen something pending, whatever any clock on the wall says."""
        if not probe.pending:
            self._pending_since.pop(shard, None)
            return 0.0
        return time.monotonic() - self._pending_since.setdefault(shard, time.monotonic())

    async def _open(self, owned: Owned) -> None:
        opened = await self._opener.open(owned)
        if opened is None:
            self._ownership.forget(owned.shard)
        else:
            self._ownership.owned[owned.shard] = opened
            self._observer.opened()

    async def _consolidate(self, owned: Owned) -> None:
        """Move batches until nothing is left, or this round has gone on for long enough."""
        while True:
            self._pending_since.pop(owned.shard, None)
            more = await self.move_batch(owned)
            if not more or time.monotonic() > self._deadline:
                return
            owned = self._ownership.owned[owned.shard]

    async def move_batch(self, owned: Owned) -> bool:
        """One batch from the journal to Postgres; whether another may follow. Raises StoreUnavailable."""
        started = time.perf_counter()
        size = self._settings.batch_size
        batch = await self._journal.read(owned.shard, opening=owned.opening, epoch=owned.epoch, count=size)
        if batch is None or not batch.entries:
            return False
        deadly = is_deadly(size, batch.attempts)
        limit = batch_limit(size, batch.attempts)
        batch = replace(batch, entries=batch.entries[:limit], more=batch.more or len(batch.entries) > limit)
        agents = list(dict.fromkeys(entry.agent for entry in batch.entries))
        read = await self._journal.documents(owned.shard, agents, opening=owned.opening)
        if read is None:
            return False
        trimmed, documents, known = read
        batch = batch.of_agents(set(agents[:known]))
        try:
            written = await self._writer.write(owned, batch, documents, trimmed, deadly=deadly)
        except BehindJournal:
            await self._open(owned)
            return False
        if written is None:
            self._ownership.forget(owned.shard)
            return False
        await self._settle(owned, batch, documents, written.versions)
        await self._report(written, time.perf_counter() - started)
        return batch.more

    async def _settle(
        self, owned: Owned, batch: Batch, documents: dict[str, bytes], versions: dict[str, Entry]
    ) -> None:
        durable = batch.entries[-1].entry
        self._ownership.owned[owned.shard] = replace(owned, durable=max(durable, owned.durable))
        active = {entry.agent: entry.accepted_ms / 1000 for entry in batch.entries}
        now = time.time()
        leases = [
            (
                agent,
                versions.get(agent) if agent in documents else None,
                lease_milliseconds(self._settings.ttl, now - at),
            )
            for agent, at in active.items()
        ]
        await self._journal.settle(owned.shard, opening=owned.opening, durable=durable, leases=leases)

    async def _report(self, written: Written, seconds: float) -> None:
        self._observer.consolidated(written.events, seconds)
        if written.dead:
            self._observer.dead_lettered(written.dead)
        await self._progress.report()

    async def drain(self) -> None:
        """Own all free shards and consolidate until every journal is empty. Raises StoreUnavailable."""
        while True:
            await self._ownership.renew(all_of_them=True)
            probes = [await self._journal.probe(shard) for shard in range(self._settings.shards)]
            if all(probe.pending == 0 for probe in probes):
                return
            for shard in range(self._settings.shards):
                self._hurried.add(shard)
            await self.round()
            await self._rest(self._tick)

    async def flush(self) -> None:
        """Consolidate what the owned shards hold now. Raises StoreUnavailable."""
        for shard in list(self._ownership.owned):
            self._hurried.add(shard)
        await self.round()

    async def stop(self) -> None:
        """Flush, and give the shards back; what cannot be flushed stays in the journal."""
        for part in (self.flush, self._ownership.release):
            try:
                await part()
            except Unavailable as error:
                logger.warning("stopping with a store down; the journal keeps what is pending: %s", error)


def needs_opening(owned: Owned, probe: Probe) -> bool:
    """Whether the shard has to be opened: for a new run of Redis, after an opener died half-way, or because Postgres
    went back behind what was trimmed."""
    if not probe.open or probe.mark is None or probe.mark[1] != owned.opening:
        return True
    return probe.trimmed is not None and probe.trimmed > max(owned.durable, START)


def is_due(probe: Probe, settings: Settings, waited: float) -> bool:
    """Whether a batch is full, or its first entry has waited long enough: by its age, or as its owner has seen it."""
    if not probe.pending:
        return False
    return probe.pending >= settings.batch_size or max(probe.lag, waited) >= settings.max_delay
