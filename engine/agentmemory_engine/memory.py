"""The memory of agents, as one object: opens the engine's parts on Redis and Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from agentmemory_engine.answers import (
    Document,
    ErasureReceipt,
    Hydration,
    Page,
    Recalled,
    RecalledBoth,
    Receipt,
    State,
    Status,
)
from agentmemory_engine.batches import raw_or_none
from agentmemory_engine.channels import Channels
from agentmemory_engine.consolidation import Consolidator
from agentmemory_engine.embedding import Embedder
from agentmemory_engine.errors import (
    InvalidInput,
    NoSnapshot,
    NotInThisMode,
    Unavailable,
    UnreadableDocument,
    VersionConflict,
)
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.export import Added, Fact, SessionLine
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.journal import ABSENT, ANY, Submission
from agentmemory_engine.keys import check_agent
from agentmemory_engine.models import Models
from agentmemory_engine.modes import compose
from agentmemory_engine.observer import Observer, Silent
from agentmemory_engine.parts import DeadLetters, Exporting, Knowledge, Sessions
from agentmemory_engine.positions import Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.redis import Redis
from agentmemory_engine.selection import Match, Selector
from agentmemory_engine.settings import Settings
from agentmemory_engine.status import reason_of
from agentmemory_engine.timelines import MergedPage
from agentmemory_engine.turns import DocumentChange, Turn, check_turn, encode_events, fingerprint
from agentmemory_engine.waking import Waking

if TYPE_CHECKING:
    from agentmemory_engine.both import Source
    from agentmemory_engine.distillation import Distillations, Setup

logger = logging.getLogger(__name__)

_MERGE_ATTEMPTS = 50


class Memory:
    """One AgentMemory. `async with` opens it and, unless `work` is False, runs its workers.

    Every call for an agent raises InvalidAgentId for an id that breaks the rule, and StoreUnavailable for a store that
    it needs and that is down.
    """

    def __init__(
        self, settings: Settings, redis: Redis | None, postgres: Postgres | None, embedder: Embedder,
        observer: Observer | None = None, *, work: bool = True, distil: Setup | None = None,
    ) -> None:  # fmt: skip
        """A store that the mode does not use is None, and any other is given."""
        self.settings = settings
        self.parts = compose(settings, redis, postgres, embedder, observer or Silent(), distil)
        self._embedder = embedder
        self._work = work
        self._selector = Selector()
        self._waking = Waking(self.parts, settings, self.record)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def sessions(self) -> Sessions:
        return self.parts.sessions

    @property
    def knowledge(self) -> Knowledge:
        return self.parts.knowledge

    @property
    def exporter(self) -> Exporting:
        return self.parts.exporter

    @property
    def dead_letters(self) -> DeadLetters:
        return self.parts.dead_letters

    @property
    def models(self) -> Models:
        """Raises NotInThisMode where vectors stand in no Postgres."""
        if self.parts.models is None:
            raise NotInThisMode("Models of embeddings are changed in Postgres, which this mode does without.")
        return self.parts.models

    @property
    def distillations(self) -> Distillations:
        """Raises NotInThisMode where there are none."""
        if self.parts.distillations is None:
            raise NotInThisMode("Facts are drawn from sessions in modes Hybrid and Postgres only.")
        return self.parts.distillations

    @property
    def channels(self) -> Channels:
        """Raises NotInThisMode where there are none."""
        if self.parts.channels is None:
            raise NotInThisMode("Channels need Redis, which mode Postgres does without; use mode Hybrid or Redis.")
        return self.parts.channels

    @property
    def consolidator(self) -> Consolidator:
        """Raises NotInThisMode where nothing is consolidated."""
        if self.parts.consolidator is None:
            raise NotInThisMode("Nothing is consolidated: only mode Hybrid has a journal.")
        return self.parts.consolidator

    async def __aenter__(self) -> Self:
        for store in self.parts.stores.values():
            await store.open()
        if self._work:
            await self._start_work()
        return self

    async def _start_work(self) -> None:
        workers = dict(self.parts.workers)
        if self.parts.consolidator is not None:
            workers["consolidation"] = self.parts.consolidator
        if self.parts.retention is not None:
            workers["retention"] = self.parts.retention
        if self.parts.distiller is not None:
            workers["distillation"] = self.parts.distiller
        if self._embedder.enabled:
            await self._embedder.start()
            workers["embedding"] = self.parts.vectors
        self._tasks += [asyncio.create_task(worker.run(), name=name) for name, worker in workers.items()]

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *, within: float | None = None) -> None:
        """Flush, give the shards back, and let go of the stores.

        After `within` seconds the connections are dropped, so that a store which hangs cannot hold up the end; what
        was not flushed stays in the journal.
        """
        closing = asyncio.create_task(self._close())
        await asyncio.wait({closing}, timeout=within)
        if not closing.done():
            logger.warning("closing before the flush is done; the journal keeps what is pending")
            for store in self.parts.stores.values():
                store.drop()
        await closing

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._work:
                if self.parts.consolidator is not None:
                    await self.parts.consolidator.stop()
                await self._release_claims()
        finally:
            if self.parts.distiller is not None:
                await self.parts.distiller.close()
            self._selector.close()
            if self.parts.channels is not None:
                await self.parts.channels.close()
            await self._embedder.close()
            for store in self.parts.stores.values():
                await store.close()

    async def _release_claims(self) -> None:
        with contextlib.suppress(Unavailable):
            if self._embedder.enabled:
                await self.parts.vectors.release()
            if self.parts.models is not None:
                await self.parts.models.leave()

    def ended_workers(self) -> list[str]:
        """The workers that have ended, by name: none does while the memory is open, unless something is very wrong."""
        return [task.get_name() for task in self._tasks if task.done()]

    async def renew_logins(self) -> dict[str, str]:
        """Move to the logins of this moment where they are others; no request fails of it.

        Answers, by store, why one goes on with the login of before; empty when none does.
        """
        stores = self.parts.stores
        reasons = await asyncio.gather(*(reason_of(store.renew()) for store in stores.values()))
        return {store: reason for store, reason in zip(stores, reasons, strict=True) if reason}

    async def identity(self) -> str:
        """The id in the identity record; the first call checks the schema. Raises SchemaMismatch, ForeignStore."""
        return await self.parts.identity.read()

    async def record(self, agent: str, turn: Turn, *, key: str | None = None, if_match: str | None = None) -> Receipt:
        """Acknowledge a turn: it is in the journal, and its change of the document is made, or neither.

        `key` makes a repetition harmless; `if_match` is a version the document must have, or `absent`. A merge or patch
        without it is applied to whatever the document is by then. Raises InvalidInput, KeyReused, TooLarge,
        VersionConflict, JournalFull, WrongEvictionPolicy, UnreadableDocument, ShardClosed, StoreUnavailable.
        """
        check_agent(agent)
        check_turn(turn)
        expected = _expected(if_match, self.settings.shard_of(agent))
        events, window = encode_events(turn)
        body = fingerprint(turn, events)
        key = key or uuid4().hex
        attempts = _MERGE_ATTEMPTS if expected == ANY and _depends_on_document(turn.working_memory) else 1
        while True:
            attempts -= 1
            change = await self.parts.working.prepare(agent, turn.working_memory, expected, key=key, fingerprint=body)
            submission = Submission(agent, key, body, turn.session, events, len(turn.events), window, change)
            try:
                return await self.parts.intake.append(submission)
            except VersionConflict:
                if not attempts:
                    raise
            except UnreadableDocument:
                # What another program has put there is kept before it is written over.
                await self.parts.quarantine.take(agent)
                attempts += 1

    async def read_document(self, agent: str) -> Document:
        """The current document. Raises NoDocument, DocumentExpired, UnreadableDocument, ShardClosed."""
        return await self.parts.working.read(check_agent(agent))

    async def read_snapshot(self, agent: str, version: Position) -> Document:
        """A kept snapshot of the document. Raises NoSnapshot, UnreadableDocument."""
        unflushed = await self.parts.events.unflushed(check_agent(agent))
        if unflushed.hides(version.entry):
            raise NoSnapshot("The snapshot of this version is erased.")
        return await self.parts.working.snapshot(agent, version)

    async def erase(self, agent: str, *, key: str | None = None, seconds: float = 10.0) -> ErasureReceipt:
        """Forget an agent: all that was accepted before, in every tier; what is written after it is a new life.

        Nothing of it is read any more once this was accepted. Waits so many seconds at most until it is gone from the
        stores. The same key answers the first erasure. Raises KeyReused, PositionLost, JournalFull, ShardClosed.
        """
        return await self.parts.erasing.erase(check_agent(agent), key or uuid4().hex, seconds)

    async def import_rows(self, agent: str, sessions: list[SessionLine], facts: list[Fact]) -> Added:
        """Store sessions and knowledge of an export; what is there stays. Raises InvalidInput."""
        return await self.parts.exporter.take(check_agent(agent), sessions, facts)

    async def select(self, document: Document, path: str) -> list[Match]:
        """The parts of a document that a JSONPath names, as they were sent. Raises InvalidInput."""
        return await self._selector.select(document.body, path)

    async def recent(self, agent: str, limit: int | None = None) -> Page:
        """The last messages, oldest first."""
        return await self.parts.events.recent(check_agent(agent), limit or self.settings.recent_messages)

    async def timeline(self, agent: str, query: TimelineQuery) -> Page:
        """A page of what happened. Raises InvalidInput."""
        return await self.parts.events.timeline(check_agent(agent), query)

    async def timelines(self, agents: Sequence[str], query: TimelineQuery) -> MergedPage:
        """A page of what several agents did. Raises InvalidInput."""
        return await self.parts.timelines.page([check_agent(agent) for agent in agents], query)

    async def recall(self, agent: str, query: RecallQuery) -> Recalled:
        """The best matches. Raises InvalidInput, RecallUnavailable."""
        return await self.parts.recall.search(check_agent(agent), query)

    async def recall_of(self, agent: str, query: RecallQuery, include: Collection[Source]) -> RecalledBoth:
        """As `recall`, among events, facts or both, in one ranking. Raises InvalidInput, RecallUnavailable."""
        return await self.parts.recall_of_both.search(check_agent(agent), query, include)

    async def hydrate(self, agent: str, query: HydrateQuery) -> Hydration:
        """An agent's context within a budget; `degraded` names what cannot be had. Raises when both stores are down."""
        return await self._waking.hydrate(check_agent(agent), query)

    async def status(self) -> Status:
        """Lag, what is pending, every shard; never raises for a store that is down."""
        return await self.parts.reporter.status()

    async def state(self, agent: str, position: Position) -> State:
        """Where a turn of this agent stands."""
        return await self.parts.barrier.state(check_agent(agent), position)

    async def wait(self, positions: list[tuple[str, Position]], until: State, seconds: float) -> None:
        """The barrier. Raises BarrierTimeout, PositionLost."""
        for agent, _ in positions:
            check_agent(agent)
        await self.parts.barrier.wait(positions, until, seconds)

    async def check(self) -> dict[str, str]:
        """What keeps an event written now from being durable and recallable, by part; empty when nothing does."""
        return await self.parts.reporter.check(self.parts.identity.read)


def _expected(if_match: str | None, shard: int) -> str:
    """The version as the script compares it. A version of another shard can never be this agent's."""
    if if_match is None:
        return ANY
    if if_match == ABSENT:
        return ABSENT
    position = Position.parse(if_match)
    if position.shard != shard:
        raise InvalidInput(f"{if_match} is not a version of this agent's document.")
    return str(position.entry)


def _depends_on_document(change: DocumentChange | None) -> bool:
    return change is not None and (raw_or_none(change.merge) or raw_or_none(change.patch)) is not None
