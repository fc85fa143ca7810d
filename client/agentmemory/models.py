"""What goes in and comes out, as values. Members that this version does not know are passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from msgspec import Struct


class NewEvent(Struct, kw_only=True, omit_defaults=True):
    """One thing that happened, to be recorded. It has `content`, or a `payload`, or both.

    `at` carries its time zone; when it is left out, the time of the call is taken.
    """

    type: str = "message"
    role: str | None = None
    content: str | None = None
    at: datetime | None = None
    payload: Any = None
    metadata: dict[str, Any] | None = None


class Event(Struct, kw_only=True):
    """One thing that happened, as memory keeps it.

    `position` and `index` give its order; `at` is when it happened, `accepted_at` when memory acknowledged it.
    """

    id: str
    position: str
    index: int = 0
    type: str = "message"
    role: str | None = None
    content: str | None = None
    payload: Any = None
    metadata: dict[str, Any] | None = None
    session: str | None = None
    at: datetime
    accepted_at: datetime | None = None


class AgentEvent(Event, kw_only=True):
    """One thing that one of several agents did."""

    agent: str


class Hit(Event, kw_only=True, tag_field="kind", tag="event"):
    """A recalled event; `score` is 0 to 1, and `scores` says what it is made of."""

    kind: ClassVar[str] = "event"
    score: float
    scores: dict[str, float] = {}


class EventId(Struct):
    """Names an event that was just recorded."""

    id: str


class Position(Struct, frozen=True):
    """A place in an agent's journal."""

    agent: str
    position: str


class Receipt(Struct, kw_only=True):
    """A write was accepted.

    `version` is the document's after it, None where there is no document. `repeated` says that an earlier try with
    the same key had already come through.
    """

    position: str
    version: str | None = None
    events: list[EventId] = []
    repeated: bool = False
    agent: str = ""

    @property
    def place(self) -> Position:
        """Where it stands, for `AgentMemory.wait`."""
        return Position(self.agent, self.position)


class NotYetGone(Struct):
    """What still holds something of an erased agent, and until when."""

    where: str
    until: str


class Erasure(Struct, kw_only=True):
    """An erasure was accepted: nothing up to `position` is read any more.

    `redis` and `postgres` count what is gone from there; they are None until it is. The same call with the same
    `idempotency_key` answers again.
    """

    agent: str
    position: str
    idempotency_key: str
    repeated: bool = False
    redis: dict[str, int] | None = None
    postgres: dict[str, int] | None = None
    not_yet_gone: list[NotYetGone] = []

    @property
    def done(self) -> bool:
        """Whether all of it has left the stores."""
        return self.postgres is not None


class ImportedRows(Struct, kw_only=True):
    """How many sessions and pieces of knowledge were added, or completed."""

    sessions: int = 0
    knowledge: int = 0


class WorkingMemory(NamedTuple):
    """An agent's document, and its version for `if_match`."""

    document: dict[str, Any]
    version: str


class SelectedValue(Struct, kw_only=True):
    """A value in the document, and its normalized path (RFC 9535)."""

    path: str
    value: Any = None


class Selection(Struct, kw_only=True):
    """What a path leads to in the document of this version; nowhere is no match."""

    version: str
    matches: list[SelectedValue] = []


class RecentMessages(Struct, kw_only=True):
    """The window of recent messages, oldest first. `degraded` names what could not be asked."""

    messages: list[Event]
    degraded: list[str] = []


class TimelinePage(Struct, kw_only=True):
    """Part of a timeline; `cursor` continues it and is None at the end. `degraded` names what could not be asked."""

    events: list[Event]
    cursor: str | None = None
    degraded: list[str] = []


class AgentsTimelinePage(Struct, kw_only=True):
    """Part of several agents' timelines; `cursor` continues it and is None at the end."""

    events: list[AgentEvent]
    cursor: str | None = None
    degraded: list[str] = []


class Fact(Struct, kw_only=True):
    """One version of a fact, believed from `believed_from` until `believed_until` (exclusive; None: to this day).

    `sources` are ids of events; `origin` is the id of the first version, which all versions share.
    """

    id: str
    origin: str = ""
    key: str | None = None
    topic: str
    content: str
    confidence: float = 1.0
    sources: list[str] = []
    metadata: dict[str, Any] | None = None
    believed_from: datetime
    believed_until: datetime | None = None


class FoundFact(Fact, kw_only=True, tag_field="kind", tag="fact"):
    """A fact that was found; `score` is 0 to 1, and `scores` says what it is made of."""

    kind: ClassVar[str] = "fact"
    score: float
    scores: dict[str, float] = {}


class Recalled(Struct, kw_only=True):
    """The best matches, best first; `kind` tells an event from a fact. `degraded` names what could not be asked.

    `not_yet_searchable` of what was included have no vector yet.
    """

    hits: list[Hit | FoundFact]
    approximate: bool = False
    degraded: list[str] = []
    not_yet_searchable: int = 0

    @property
    def events(self) -> list[Hit]:
        """The events among the hits, best first."""
        return [hit for hit in self.hits if isinstance(hit, Hit)]

    @property
    def facts(self) -> list[FoundFact]:
        """The facts among the hits, best first."""
        return [hit for hit in self.hits if isinstance(hit, FoundFact)]


class QuarantinedDocument(Struct, kw_only=True):
    """What stood in the place of a document and could not be read: a dead letter of this id by now."""

    id: str
    reason: str = ""
    bytes: int = 0


class Hydration(Struct, kw_only=True):
    """An agent's context on wake-up; `text` renders all of it within the budget of (estimated) tokens.

    `cold_start` is None where working memory was there, else why not: `new-agent`, `expired` or `unreadable`; what
    could not be read was set aside, and is `quarantined`. `left_out` counts what the budget had no room for.
    """

    working_memory: dict[str, Any] | None = None
    version: str | None = None
    recent: list[Event] = []
    recalled: list[Hit] = []
    knowledge: list[FoundFact] = []
    text: str = ""
    tokens: int = 0
    cold_start: str | None = None
    quarantined: list[QuarantinedDocument] = []
    left_out: dict[str, int] = {}
    degraded: list[str] = []


class ShardStatus(Struct, kw_only=True):
    """One shard: `durable` and `searchable` are the positions up to which all is. None: could not be found out."""

    shard: int
    open: bool | None = None
    opening: int | None = None
    pending: int | None = None
    lag_seconds: float | None = None
    durable: str | None = None
    searchable: str | None = None
    owner: str | None = None


class EmbeddingModel(Struct, kw_only=True):
    """A model that has vectors. `back_filled` of about `total` events and facts of before were gone through.

    `kept`: what is new is embedded by it. `complete`: so is all of before. `current`: recall goes by it, since
    `switched_at`. `own`: the sidecar that answers embeds by it. `unwanted`: its vectors are being deleted.
    """

    id: int
    name: str
    dimensions: int
    kept: bool = False
    complete: bool = False
    current: bool = False
    own: bool = False
    unwanted: bool = False
    switched_at: datetime | None = None
    back_filled: int = 0
    total: int = 0


class BackFill(Struct, kw_only=True):
    """How far the vectors of a new model are: `done` of about `total` events and facts of before."""

    model: str
    done: int = 0
    total: int = 0


class Status(Struct, kw_only=True):
    """The whole memory. None means that it could not be found out; `degraded` says what did not answer."""

    mode: str | None = None
    lag_seconds: float | None = None
    pending: int | None = None
    dead_letters: int | None = None
    quarantined: int | None = None
    unembedded: int | None = None
    unembeddable: int | None = None
    embedding_model: str | None = None
    back_fill: BackFill | None = None
    undistilled: int | None = None
    undistillable: int | None = None
    persistence: str | None = None
    shards: list[ShardStatus] = []
    degraded: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether every store answers and every shard takes turns."""
        return not self.degraded and all(shard.open for shard in self.shards)


class DeadLetter(Struct, kw_only=True):
    """An event that Postgres refuses, or a document that cannot be read; `kind` says which.

    `event` is its JSON, or its text where that is no JSON.
    """

    kind: str = "event"
    id: str
    agent: str
    position: str
    index: int = 0
    reason: str = ""
    sqlstate: str | None = None
    event: Any = None
    dead_at: datetime


class DeadLetterPage(Struct, kw_only=True):
    """Part of the dead letters; `cursor` continues it and is None at the end."""

    dead_letters: list[DeadLetter]
    cursor: str | None = None
