"""What the engine answers, as values. Documents and payloads are the bytes that were sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from agentmemory_engine.positions import Position

State = Literal["pending", "durable", "searchable", "lost"]
ColdStart = Literal["new-agent", "expired", "unreadable"]


@dataclass(frozen=True)
class Document:
    """A working-memory document: the JSON as it was sent, and its version, the position of the turn that wrote it."""

    version: Position
    body: bytes


@dataclass(frozen=True)
class Receipt:
    """A turn is in the journal. `version` is the document's after it, None where there is no document."""

    position: Position
    version: Position | None
    events: list[UUID]
    repeated: bool


@dataclass(frozen=True, kw_only=True)
class Erased:
    """How much an erasure took: from Redis (document, recent messages), from the journal, and from Postgres."""

    documents: int
    messages: int
    journalled: int
    events: int
    embeddings: int
    snapshots: int
    dead_letters: int
    sessions: int
    knowledge: int


@dataclass(frozen=True)
class ErasureReceipt:
    """An erasure was accepted; `erased` is None as long as it is not carried out in Postgres."""

    agent: str
    position: Position
    key: str
    repeated: bool
    erased: Erased | None


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event from the journal or from Postgres; `payload` and `metadata` are JSON."""

    id: UUID
    position: Position
    index: int
    type: str
    role: str | None
    content: str | None
    payload: bytes | None
    metadata: bytes | None
    session: str | None
    at: datetime
    accepted_at: datetime

    @property
    def order(self) -> tuple[Position, int]:
        return self.position, self.index


@dataclass(frozen=True)
class Page:
    """Part of a timeline. `cursor` continues it; None at the end. `degraded` names what could not be asked."""

    events: list[StoredEvent]
    cursor: str | None
    degraded: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Hit:
    """A recalled event; `score` is 0 to 1, `scores` says what it is made of."""

    event: StoredEvent
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Recalled:
    """The best matches, best first. `not_yet_searchable` events are acknowledged and have no vector yet."""

    hits: list[Hit]
    approximate: bool = False
    degraded: list[str] = field(default_factory=list)
    not_yet_searchable: int = 0


@dataclass(frozen=True, kw_only=True)
class Hydration:
    """An agent's context on wake-up. `text` renders all of it within the budget (in estimated tokens).

    `quarantined` is what stood in the place of the document and was set aside, where `cold_start` is `unreadable`.
    """

    working_memory: bytes | None
    version: Position | None
    recent: list[StoredEvent]
    recalled: list[Hit]
    knowledge: list[FactHit]
    text: str
    tokens: int
    cold_start: ColdStart | None
    quarantined: list[DeadLetter]
    left_out: dict[str, int]
    degraded: list[str]


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """A session. `last_event_at` is None before its first event, `ended_at` while it is open; `metadata` is JSON."""

    id: str
    started_at: datetime
    last_event_at: datetime | None
    ended_at: datetime | None = None
    metadata: bytes | None = None


@dataclass(frozen=True)
class SessionPage:
    """Sessions, newest first. `cursor` continues it; None at the end. `degraded` names what could not be asked."""

    sessions: list[SessionRecord]
    cursor: str | None
    degraded: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One version of a fact, believed from `believed_from` until `believed_until` (exclusive; None: to this day)."""

    id: UUID
    key: str | None
    topic: str
    content: str
    confidence: float
    sources: list[UUID]
    metadata: bytes | None
    believed_from: datetime
    believed_until: datetime | None
    origin: UUID
    """The id of its first version, which all of one fact share."""


@dataclass(frozen=True)
class FactPage:
    """Facts, newest belief first. `cursor` continues it; None at the end."""

    facts: list[Fact]
    cursor: str | None


@dataclass(frozen=True)
class FactHit:
    """A fact that was found; `score` is 0 to 1, `scores` says what it is made of."""

    fact: Fact
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class FoundFacts:
    """The best matches, best first. `not_yet_embedded` facts are found by their words only.

    `degraded` holds `semantic` where no fact could be found by meaning.
    """

    hits: list[FactHit]
    not_yet_embedded: int = 0
    degraded: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RecalledBoth:
    """As Recalled, of events and facts in one ranking. `not_yet_searchable` counts both."""

    hits: list[Hit | FactHit]
    approximate: bool = False
    degraded: list[str] = field(default_factory=list)
    not_yet_searchable: int = 0


@dataclass(frozen=True, kw_only=True)
class ShardStatus:
    """One shard. `durable` and `searchable` are the last positions up to which all is; `lag` is in seconds.

    `open` is None where Redis could not be asked.
    """

    shard: int
    open: bool | None
    opening: int | None
    pending: int | None
    lag: float | None
    durable: Position | None
    searchable: Position | None
    owner: str | None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of embeddings that has, or had, vectors here.

    `done` of about `total` events and facts are through its back-fill. `kept`: what is new is embedded by it.
    `complete`: so is all that was there before. `current`: recall goes by it, since `switched_at`. `unwanted`: its
    vectors are on their way out.
    """

    number: int
    name: str
    dimensions: int
    kept: bool
    complete: bool
    current: bool
    switched_at: datetime | None
    done: int
    total: int
    unwanted: bool

    @classmethod
    def of(cls, row: Any) -> Self:
        """From a row of models.sql."""
        complete = row["completed_at"] is not None
        scanned, pending = row["scanned"], row["pending"]
        return cls(
            number=row["model"],
            name=row["name"],
            dimensions=row["dimensions"],
            kept=row["kept"],
            complete=complete,
            current=row["switched_at"] is not None,
            switched_at=row["switched_at"],
            done=max(0, scanned - pending),
            total=scanned if complete else max(row["total"] or 0, scanned),
            unwanted=row["unwanted_at"] is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Status:
    """The whole memory. None means that it could not be found out; `degraded` says which store did not answer."""

    mode: str
    lag: float | None
    pending: int | None
    dead_letters: int | None
    quarantined: int | None = None
    unembedded: int | None
    unembeddable: int | None
    model: int | None = None
    """The number of the model that this process embeds by; None where it is not known, or there is none."""
    models: list[Model] | None = None
    undistilled: int | None = None
    undistillable: int | None = None
    persistence: str
    shards: list[ShardStatus]
    degraded: list[str]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """A session that facts are to be drawn from. `attempts` were refused in a row; `refused` says why the last one."""

    agent: str
    session: str
    asked_at: datetime
    attempts: int
    refused: str | None
    given_up: bool


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """An event that Postgres refused for its own sake, or a document that is no JSON object.

    `raw` is the event's JSON as it was journalled; of a document, all that stood in its place. `position` is a
    document's version or, where it had none, the next one after all that the journal held when it was found.
    """

    kind: Literal["event", "document"] = "event"
    id: UUID
    agent: str
    position: Position
    index: int
    reason: str
    sqlstate: str | None
    raw: bytes
    dead_at: datetime
