"""What a memory is made of: the same parts in every mode, each with the classes that its stores need.

Every call of a part for an agent raises StoreUnavailable for a store that it needs and that is down, and ShardClosed
where a shard is not open for the present run of Redis.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from agentmemory_engine.answers import (
    DeadLetter,
    Document,
    ErasureReceipt,
    Fact,
    FactPage,
    FoundFacts,
    Page,
    Recalled,
    RecalledBoth,
    SessionPage,
    SessionRecord,
    State,
    Status,
)
from agentmemory_engine.positions import Entry, Position

if TYPE_CHECKING:
    from agentmemory_engine import export
    from agentmemory_engine.both import Source
    from agentmemory_engine.channels import Channels
    from agentmemory_engine.consolidation import Consolidator
    from agentmemory_engine.distillation import Distillations, Distiller
    from agentmemory_engine.events import TimelineQuery
    from agentmemory_engine.fact_search import FactQuery
    from agentmemory_engine.facts import FactChange, NewFact
    from agentmemory_engine.intake import Intake
    from agentmemory_engine.journal import Change
    from agentmemory_engine.knowledge import KnowledgeQuery
    from agentmemory_engine.models import Models
    from agentmemory_engine.recall import RecallQuery
    from agentmemory_engine.sessions import NewSession, SessionChange, SessionQuery
    from agentmemory_engine.tail import Unflushed
    from agentmemory_engine.timelines import MergedPage
    from agentmemory_engine.turns import DocumentChange


class Working(Protocol):
    """Reads documents, and prepares their changes."""

    async def read(self, agent: str) -> Document:
        """The current document. Raises NoDocument, DocumentExpired."""
        ...

    async def current(self, agent: str) -> Document | None:
        """The document as it is now, or None."""
        ...

    async def last_snapshot(self, agent: str) -> Document | None:
        """The newest snapshot; None where there is none, or the document was deleted."""
        ...

    async def snapshot(self, agent: str, version: Position) -> Document:
        """A kept snapshot. Raises NoSnapshot."""
        ...

    async def prepare(
        self, agent: str, change: DocumentChange | None, expected: str, *, key: str, fingerprint: bytes
    ) -> Change:
        """The change as the intake takes it. Raises InvalidInput, TooLarge."""
        ...


class Episodic(Protocol):
    """Reads what happened to one agent."""

    async def timeline(self, agent: str, query: TimelineQuery) -> Page:
        """A page of it. Raises InvalidInput."""
        ...

    async def recent(self, agent: str, limit: int) -> Page:
        """The last messages, oldest first."""
        ...

    async def unflushed(self, agent: str) -> Unflushed:
        """What of the agent is not durable yet, or not hidden any more though it is."""
        ...


class Merged(Protocol):
    """Reads what happened to several agents."""

    async def page(self, agents: Sequence[str], query: TimelineQuery) -> MergedPage:
        """A page of it. Raises InvalidInput."""
        ...


class Searching(Protocol):
    """Finds events."""

    async def search(self, agent: str, query: RecallQuery) -> Recalled:
        """The best matches. Raises InvalidInput, RecallUnavailable."""
        ...


class SearchingBoth(Protocol):
    """Finds events and facts."""

    async def search(self, agent: str, query: RecallQuery, include: Collection[Source]) -> RecalledBoth:
        """The best matches, in one ranking. Raises InvalidInput, RecallUnavailable."""
        ...


class Sessions(Protocol):
    """The sessions of agents; see sessions.Sessions."""

    async def start(self, agent: str, new: NewSession, *, key: str | None = None) -> tuple[SessionRecord, bool]: ...

    async def change(self, agent: str, identity: str, change: SessionChange) -> SessionRecord: ...

    async def read(self, agent: str, identity: str) -> SessionRecord: ...

    async def page(self, agent: str, query: SessionQuery) -> SessionPage: ...


class Knowledge(Protocol):
    """What agents know; see knowledge.Knowledge."""

    async def put(self, agent: str, new: NewFact, *, key: str | None = None) -> tuple[Fact, bool]: ...

    async def change(
        self, agent: str, identity: UUID, change: FactChange, *, key: str | None = None
    ) -> tuple[Fact, bool]: ...

    async def end(self, agent: str, identity: UUID) -> Fact: ...

    async def erase(self, agent: str, identity: UUID) -> int: ...

    async def read(self, agent: str, identity: UUID) -> Fact: ...

    async def page(self, agent: str, query: KnowledgeQuery) -> FactPage: ...

    async def search(self, agent: str, query: FactQuery) -> FoundFacts: ...


class Exporting(Protocol):
    """All that memory holds of one agent, and the way back in for what does not come by turns."""

    async def begin(self, agent: str) -> export.Export:
        """Fix where the export ends."""
        ...

    def lines(self, begun: export.Export, /) -> AsyncGenerator[export.Line, None]:
        """Sessions, events in order, knowledge, dead letters."""
        ...

    async def take(
        self, agent: str, sessions: Sequence[export.SessionLine], facts: Sequence[export.Fact]
    ) -> export.Added:
        """Store sessions and knowledge of an export, all or nothing; what is there stays. Raises InvalidInput."""
        ...


class Erasing(Protocol):
    """Forgets agents."""

    async def erase(self, agent: str, key: str, seconds: float) -> ErasureReceipt:
        """Erase all that was accepted before. Raises KeyReused, PositionLost, JournalFull."""
        ...


class Waiting(Protocol):
    """Where positions stand."""

    async def durable(self, agent: str) -> Entry:
        """An entry up to which all of the agent is durable."""
        ...

    async def state(self, agent: str, position: Position) -> State:
        """Where a turn of this agent stands."""
        ...

    async def wait(self, positions: list[tuple[str, Position]], until: State, seconds: float) -> None:
        """Return when all have come that far. Raises BarrierTimeout, PositionLost."""
        ...


class Reporting(Protocol):
    """Answers for the whole memory."""

    async def status(self) -> Status:
        """Never raises for a store that is down: its part is None, and `degraded` names it."""
        ...

    async def check(self, identity: Callable[[], Awaitable[str]] | None = None) -> dict[str, str]:
        """What keeps an event written now from being durable and recallable, by part; empty when nothing does."""
        ...


class Identified(Protocol):
    """Whose memory the stores hold."""

    async def read(self) -> str:
        """The id in the identity record. Raises SchemaMismatch, ForeignStore."""
        ...


class DeadLetters(Protocol):
    """The events that a store refused for their own sake, and unreadable documents; see dead_letters.DeadLetters."""

    async def list(self, *, after: tuple[datetime, str, UUID] | None = None, limit: int = 100) -> list[DeadLetter]: ...

    async def read(self, agent: str, letter: UUID) -> DeadLetter: ...

    async def discard(self, agent: str, letter: UUID) -> None: ...

    async def replay(self, agent: str, letter: UUID) -> None: ...


class Quarantining(Protocol):
    """Sets aside what stands in the place of a document and is none."""

    async def take(self, agent: str) -> list[DeadLetter]:
        """What was set aside, byte for byte."""
        ...


class Worker(Protocol):
    """Works in the background while the memory is open."""

    async def run(self) -> None:
        """Work until cancelled."""
        ...


class Retaining(Worker, Protocol):
    """Lets go of events that are older than they are kept."""

    async def sweep(self) -> int:
        """Delete what is too old; how many events."""
        ...


class Embedding(Worker, Protocol):
    """Makes vectors of what is durable."""

    async def embed_batch(self) -> int:
        """Embed a batch; how much was embedded. Raises EmbeddingUnavailable."""
        ...

    async def release(self) -> None:
        """Let others embed what we had claimed."""
        ...


class Store(Protocol):
    """A connection to a store, made when it is first needed."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def drop(self) -> None:
        """Cut off what is under way."""
        ...

    async def renew(self) -> bool:
        """Move to the login of this moment where that is another one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A memory in one mode.

    `channels`, `consolidator` and `distillations` are None in a mode that has none, `retention` where events are kept
    for good, `distiller` where no facts are drawn from sessions, `models` where vectors stand
    in no Postgres.
    """

    intake: Intake
    working: Working
    events: Episodic
    timelines: Merged
    recall: Searching
    recall_of_both: SearchingBoth
    sessions: Sessions
    knowledge: Knowledge
    exporter: Exporting
    erasing: Erasing
    barrier: Waiting
    reporter: Reporting
    identity: Identified
    dead_letters: DeadLetters
    quarantine: Quarantining
    vectors: Embedding
    retention: Retaining | None
    models: Models | None = None
    channels: Channels | None
    consolidator: Consolidator | None
    stores: dict[str, Store]
    distillations: Distillations | None = None
    distiller: Distiller | None = None
    workers: dict[str, Worker] = field(default_factory=dict)
    """What else works in the background, by name."""
