"""Consolidation: one owner a shard moves its journal into Postgres, in order.

A batch is read under one opening, committed in one transaction that is fenced by epoch and opening, and settled in
Redis after that. A commit whose answer was lost is done again, and inserts nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from agentmemory_engine.batches import batch_limit, is_deadly, lease_milliseconds
from agentmemory_engine.complaints import Complaints
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.journal import Batch, Journal, Probe
from agentmemory_engine.observer import Observer
from agentmemory_engine.positions import START, Entry
from agentmemory_engine.progress import Progress
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Opener, Owned, Ownership
from agentmemory_engine.writer import BehindJournal, Writer, Written

logger = logging.getLogger(__name__)

_AT_ONCE = 2
"""Shards consolidated at the same time: some of the few connections to Postgres stay free for reads."""


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
        self._complaints = Complaints(logger, "consolidation waits")
        self.moved = 0
        """Turns moved from the journal to Postgres."""
        self.last_success: float | None = None
        """When a round last went through all owned shards without a failure (seconds since 1970)."""

    @property
    def owned(self) -> dict[int, Owned]:
        return self._ownership.owned

    def hurry(self, shard: int) -> None:
        """Consolidate this shard now, if it is ours, instead of waiting for its batch to fill or age."""
        self._hurried.add(shard)
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
                    self._complaints.end()
                else:
                    pause = min(pause * 2, 2.0)
            except Unavailable as error:
                self._observer.failed("consolidation")
                self._complaints.say(error)
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
        """Look at every owned shard once; whether we failed on none by our own fault.

        A shard whose server is down holds up no other one. Raises StoreUnavailable for the first such.
        """
        owned = list(self._ownership.owned.values())
        self._deadline = time.monotonic() + max(self._settings.lease / 3, self._tick)
        results = await asyncio.gather(*(self._look_at(one) for one in owned), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return all(results)

    async def _look_at(self, owned: Owned) -> bool:
        return await self._tend(owned, await self._journal.probe(owned.shard))

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
        self.moved += len(batch.entries)
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
