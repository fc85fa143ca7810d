"""What goes over the wire, as types: requests are checked against them, answers are made from them, and the OpenAPI
document describes them. JSON that the sidecar only passes on is `Raw`: it leaves as the bytes that came."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from agentmemory_engine.answers import Fact as BelievedFact
from agentmemory_engine.answers import FactHit, Hit, Hydration, ShardStatus, State, Status, StoredEvent
from agentmemory_engine.keys import A_NAME

LONGEST_QUERY = 20_000
Moment = Annotated[datetime, Meta(tz=True)]
AgentId = Annotated[
    str,
    Meta(
        description="1 to 128 of A-Z a-z 0-9 . _ : @ + ~ = -, a letter or digit first",
        extra_json_schema=A_NAME,
    ),
]
PositionText = Annotated[str, Meta(description="opaque; ordered within an agent", examples=["3.7-1042"])]


class SelectedValue(Struct, kw_only=True):
    """A value as it stands in the document, and its normalized path (RFC 9535)."""

    path: Annotated[str, Meta(examples=["$['tasks'][0]"])]
    value: Raw


class Selection(Struct, kw_only=True):
    """What a path leads to in the document of this version, in the order of RFC 9535; nowhere is no match."""

    version: PositionText
    matches: list[SelectedValue]


class RecordedEvent(Struct, kw_only=True, omit_defaults=True):
    """One thing that happened; members without a value are left out."""

    id: UUID
    position: PositionText
    index: Annotated[int, Meta(description="its place in the turn")]
    type: str
    role: str | None = None
    content: str | None = None
    payload: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET
    session: str | None = None
    at: datetime
    accepted_at: datetime


class AgentEvent(RecordedEvent, kw_only=True):
    """One thing that one of several agents did."""

    agent: AgentId


class RecalledEvent(RecordedEvent, kw_only=True, tag_field="kind", tag="event"):
    """An event that recall found; `score` is 0 to 1, and `scores` says what it is made of."""

    score: float
    scores: dict[str, float]


class WriteReceipt(Struct, kw_only=True):
    """A change of the document was accepted. `repeated`: an earlier request with this key did it."""

    position: PositionText
    version: PositionText | None
    repeated: bool


class EventId(Struct):
    id: UUID


class TurnReceipt(Struct, kw_only=True):
    """A turn was accepted. `version` is the document's after it, null where there is none."""

    position: PositionText
    version: PositionText | None
    events: list[EventId]
    repeated: bool


class RecentMessages(Struct, kw_only=True):
    """Oldest first. `degraded` names what could not be asked."""

    messages: list[RecordedEvent]
    degraded: list[str]


class TimelinePage(Struct, kw_only=True):
    """`cursor` continues it; null at the end. `degraded` names what could not be asked."""

    events: list[RecordedEvent]
    cursor: str | None
    degraded: list[str]


class AgentsTimelinePage(Struct, kw_only=True):
    """`cursor` continues it; null at the end. `degraded` names what could not be asked."""

    events: list[AgentEvent]
    cursor: str | None
    degraded: list[str]


class RecallFilter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which events may be found; `until` is exclusive, `metadata` is contained in the event's."""

    types: list[str] | None = None
    session: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    metadata: dict[str, Raw] | None = None


class Fact(Struct, kw_only=True):
    """One version of a fact, believed from `believed_from` until `believed_until` (exclusive; null: to this day)."""

    id: UUID
    origin: Annotated[UUID, Meta(description="the id of its first version, which all versions share")]
    key: str | None
    topic: str
    content: str
    confidence: float
    sources: list[UUID]
    metadata: Raw | UnsetType = UNSET
    believed_from: datetime
    believed_until: datetime | None


class FoundFact(Fact, kw_only=True, tag_field="kind", tag="fact"):
    """A fact that was found; `score` is 0 to 1, and `scores` says what it is made of."""

    score: float
    scores: dict[str, float]


class RecencyWish(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How much newer events are preferred."""

    half_life: Annotated[str, Meta(description="the age at which half of it is left", examples=["7d", "1h30m"])]
    weight: Annotated[float, Meta(ge=0, le=1)]


class RecallRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """Either `query` or `vector`.

    With `knowledge` included, facts are ranked among the hits, by the same measure. The filter holds for them as well:
    `metadata` is theirs, `since` and `until` are of when they were believed, and none passes `types` or `session`.
    """

    query: Annotated[str, Meta(max_length=LONGEST_QUERY)] | None = None
    vector: list[float] | None = None
    k: Annotated[int, Meta(ge=1, le=100)] = 5
    strategy: (
        Annotated[
            Literal["hybrid", "semantic", "keyword"],
            Meta(description="by default hybrid for a `query`, semantic for a `vector`"),
        ]
        | None
    ) = None
    include: Annotated[
        list[Literal["events", "knowledge"]],
        Meta(min_length=1, max_length=2, description="what is searched; by default events"),
    ] = field(default_factory=lambda: ["events"])
    filter: RecallFilter = RecallFilter()
    min_score: Annotated[float, Meta(ge=0, le=1)] | None = None
    recency: RecencyWish | None = None
    diversity: Annotated[float, Meta(ge=0, le=1, description="how much what repeats an earlier hit is put back")] = 0.0
    named_times: Annotated[
        bool, Meta(description="whether a time that a hybrid query names, like `last Tuesday`, counts")
    ] = True
    time_zone: Annotated[str, Meta(max_length=64, description="in which it is named", examples=["Europe/Vienna"])] = (
        "UTC"
    )


class RecallAnswer(Struct, kw_only=True):
    """Best first. `not_yet_searchable` of what is included have no vector yet, and are found by keyword only.

    `degraded` names what could not be asked: `unflushed`, `semantic` where hybrid recall had to do without, or
    `back_fill` where events of before have no vector of a new model yet. `approximate`: the hits come from an index
    that may miss some.
    """

    hits: list[RecalledEvent | FoundFact]
    approximate: bool
    not_yet_searchable: int
    degraded: list[str]


class Budget(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How much context may be given, in estimated tokens."""

    tokens: Annotated[int, Meta(ge=1, le=10_000_000)] = 2000


class HydrateRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`restore` writes an expired document back from its last snapshot; without `query` nothing is recalled."""

    query: Annotated[str, Meta(max_length=LONGEST_QUERY)] | None = None
    budget: Budget = Budget()
    restore: bool = False
    k: Annotated[int, Meta(ge=1, le=100)] = 8


class QuarantinedDocument(Struct, kw_only=True):
    """What stood in the place of the document, and is a dead letter now."""

    id: UUID
    reason: str
    bytes: int


class HydrateAnswer(Struct, kw_only=True):
    """An agent's context; `text` renders all of it within the budget, `left_out` counts what had no room.

    `cold_start` says why there was no document; where it could not be read, `quarantined` is what was set aside.
    """

    working_memory: Raw | None
    version: PositionText | None
    recent: list[RecordedEvent]
    recalled: list[RecalledEvent]
    knowledge: list[FoundFact]
    text: str
    tokens: int
    cold_start: Literal["new-agent", "expired", "unreadable"] | None
    quarantined: list[QuarantinedDocument]
    left_out: dict[str, int]
    degraded: list[str]


class Shard(Struct, kw_only=True):
    """One shard; null where it could not be found out."""

    shard: int
    open: bool | None
    opening: int | None
    pending: int | None
    lag_seconds: float | None
    durable: PositionText | None
    searchable: PositionText | None
    owner: str | None


class BackFill(Struct, kw_only=True):
    """How far the vectors of a new model are: `done` of about `total` events and facts of before."""

    model: str
    done: int
    total: int


class ConsolidationStatus(Struct, kw_only=True):
    """The whole memory; null where it could not be found out, and `degraded` names the store that did not answer.

    `embedding_model` is the one that recall goes by, for the whole memory. `back_fill` is null unless this sidecar's
    own model is new and has not gone through all that was there before.
    """

    mode: str
    lag_seconds: float | None
    pending: int | None
    dead_letters: int | None
    quarantined: int | None
    unembedded: int | None
    unembeddable: int | None
    embedding_model: str | None
    back_fill: BackFill | None
    undistilled: int | None
    undistillable: int | None
    persistence: str
    shards: list[Shard]
    degraded: list[str]


class PositionState(Struct, kw_only=True):
    """Where a turn stands."""

    position: PositionText
    state: State


class AgentPosition(Struct, kw_only=True, forbid_unknown_fields=True):
    """A turn of an agent."""

    agent: AgentId
    position: PositionText


class BarrierRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """What to wait for, and how long at most."""

    positions: Annotated[list[AgentPosition], Meta(min_length=1, max_length=1000)]
    until: Literal["durable", "searchable"] = "durable"
    timeout_seconds: Annotated[float, Meta(ge=0, le=60)] = 10.0


class BarrierAnswer(Struct, kw_only=True):
    """All positions are there."""

    reached: bool
    until: Literal["durable", "searchable"]


class Letter(Struct, kw_only=True):
    """An event that Postgres refused, or a document that is no JSON object; `kind` says which.

    `event` is its JSON, or its text where that is no JSON; `GET …/{id}/raw` has its bytes.
    """

    kind: Literal["event", "document"]
    id: UUID
    agent: AgentId
    position: PositionText
    index: int
    reason: str
    sqlstate: str | None
    event: Raw
    dead_at: datetime


class LetterPage(Struct, kw_only=True):
    """Oldest first; `cursor` continues it, null at the end."""

    dead_letters: list[Letter]
    cursor: str | None


class Replayed(Struct):
    replayed: bool


class Deleted(Struct):
    deleted: bool


class Problem(Struct, kw_only=True):
    """RFC 9457. `type` ends in a stable code; more members depend on it. `instance` is the request's id."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


def recorded(event: StoredEvent) -> RecordedEvent:
    """An event as it is answered."""
    return RecordedEvent(**event_members(event))


def recorded_of(agent: str, event: StoredEvent) -> AgentEvent:
    """An event of one of several agents as it is answered."""
    return AgentEvent(**event_members(event), agent=agent)


def recalled_of(hit: Hit | FactHit) -> RecalledEvent | FoundFact:
    """A hit of either kind as it is answered."""
    return recalled(hit) if isinstance(hit, Hit) else found_fact(hit)


def recalled(hit: Hit) -> RecalledEvent:
    """A hit as it is answered."""
    return RecalledEvent(**event_members(hit.event), score=hit.score, scores=hit.scores)


def event_members(event: StoredEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "position": str(event.position),
        "index": event.index,
        "type": event.type,
        "role": event.role,
        "content": event.content,
        "payload": UNSET if event.payload is None else Raw(event.payload),
        "metadata": UNSET if event.metadata is None else Raw(event.metadata),
        "session": event.session,
        "at": event.at,
        "accepted_at": event.accepted_at,
    }


def found_fact(hit: FactHit) -> FoundFact:
    """A fact that was found, as it is answered."""
    return FoundFact(**_members_of(hit.fact), score=hit.score, scores=hit.scores)


def believed(fact: BelievedFact) -> Fact:
    """A fact as it is answered."""
    return Fact(**_members_of(fact))


def _members_of(fact: BelievedFact) -> dict[str, Any]:
    return {
        "id": fact.id,
        "origin": fact.origin,
        "key": fact.key,
        "topic": fact.topic,
        "content": fact.content,
        "confidence": fact.confidence,
        "sources": fact.sources,
        "metadata": UNSET if fact.metadata is None else Raw(fact.metadata),
        "believed_from": fact.believed_from,
        "believed_until": fact.believed_until,
    }


def hydrated(hydration: Hydration) -> HydrateAnswer:
    """A hydration as it is answered."""
    return HydrateAnswer(
        working_memory=None if hydration.working_memory is None else Raw(hydration.working_memory),
        version=None if hydration.version is None else str(hydration.version),
        recent=[recorded(event) for event in hydration.recent],
        recalled=[recalled(hit) for hit in hydration.recalled],
        knowledge=[found_fact(hit) for hit in hydration.knowledge],
        text=hydration.text,
        tokens=hydration.tokens,
        cold_start=hydration.cold_start,
        quarantined=[
            QuarantinedDocument(id=one.id, reason=one.reason, bytes=len(one.raw)) for one in hydration.quarantined
        ],
        left_out=hydration.left_out,
        degraded=hydration.degraded,
    )


def status_of(status: Status) -> ConsolidationStatus:
    """A status as it is answered."""
    return ConsolidationStatus(
        mode=status.mode,
        lag_seconds=status.lag,
        pending=status.pending,
        dead_letters=status.dead_letters,
        quarantined=status.quarantined,
        unembedded=status.unembedded,
        unembeddable=status.unembeddable,
        embedding_model=next((one.name for one in status.models or [] if one.current), None),
        back_fill=_back_fill_of(status),
        undistilled=status.undistilled,
        undistillable=status.undistillable,
        persistence=status.persistence,
        shards=[_shard_of(shard) for shard in status.shards],
        degraded=status.degraded,
    )


def _back_fill_of(status: Status) -> BackFill | None:
    own = next((one for one in status.models or [] if one.number == status.model and not one.complete), None)
    return None if own is None else BackFill(model=own.name, done=own.done, total=own.total)


def _shard_of(shard: ShardStatus) -> Shard:
    return Shard(
        shard=shard.shard,
        open=shard.open,
        opening=shard.opening,
        pending=shard.pending,
        lag_seconds=shard.lag,
        durable=None if shard.durable is None else str(shard.durable),
        searchable=None if shard.searchable is None else str(shard.searchable),
        owner=shard.owner,
    )
