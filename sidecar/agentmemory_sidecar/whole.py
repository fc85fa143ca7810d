"""What goes over the wire of a whole agent: the lines of an export, and the receipt of an erasure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from agentmemory_engine.answers import ErasureReceipt
from agentmemory_engine.export import Export, Fact, LetterLine, SessionLine
from agentmemory_engine.settings import Mode
from agentmemory_engine.turns import AN_OBJECT
from agentmemory_sidecar.models import AgentId, Moment, PositionText, RecordedEvent

FORMAT: Literal[1] = 1


class ExportHeader(Struct, kw_only=True, tag_field="kind", tag="export"):
    """The first line. What was accepted up to `position` is in the export, and no event after that."""

    format: Literal[1] = FORMAT
    agent: AgentId
    position: PositionText


class ExportedDocument(Struct, kw_only=True, tag_field="kind", tag="document"):
    """The document, or the last snapshot of one whose lease has ended. No such line: there is none."""

    version: PositionText
    expired: bool
    document: Raw


class ExportedSession(Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="session"):
    """A session of the agent. The idempotency key that started it is not in it."""

    session: Annotated[str, Meta(min_length=1, max_length=256)]
    started_at: Moment
    last_event_at: Moment | None = None
    ended_at: Moment | None = None
    metadata: Annotated[Raw | UnsetType, Meta(extra_json_schema=AN_OBJECT)] = UNSET


class ExportedEvent(RecordedEvent, kw_only=True, tag_field="kind", tag="event"):
    """An event. Those of one turn follow each other, with one position."""


class ExportedFact(Struct, kw_only=True, tag_field="kind", tag="knowledge"):
    """A piece of knowledge, with the time for which it is believed; what it replaced has a line of its own."""

    fact: Annotated[Raw, Meta(extra_json_schema=AN_OBJECT)]


class ExportedLetter(Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="dead_letter"):
    """An event that Postgres refused: its JSON, an array of several, or its text where that is no JSON."""

    id: UUID
    position: PositionText
    index: int
    session: str | None = None
    accepted_at: datetime
    reason: str
    sqlstate: str | None = None
    event: Raw
    dead_at: datetime


class ExportedUnreadable(Struct, kw_only=True, tag_field="kind", tag="unreadable_document"):
    """What stood in the place of a document and was no JSON object, as it was found."""

    id: UUID
    position: PositionText
    reason: str
    dead_at: datetime
    base64: bytes


class ExportEnd(Struct, kw_only=True, tag_field="kind", tag="end"):
    """The last line: an export without it was cut off."""

    sessions: int = 0
    events: int = 0
    knowledge: int = 0
    dead_letters: int = 0
    unreadable: int = 0


class Imported(Struct, kw_only=True):
    """How many sessions and pieces of knowledge were added, or completed."""

    sessions: int
    knowledge: int


class ErasedFromRedis(Struct, kw_only=True):
    """What left Redis: at once, and with consolidation."""

    documents: int
    recent_messages: int
    journalled_events: int


class ErasedFromPostgres(Struct, kw_only=True):
    """How many rows went; in mode Redis, which has no rows, how much of each left Redis."""

    events: int
    embeddings: int
    snapshots: int
    dead_letters: int
    sessions: int
    knowledge: int


class NotYetGone(Struct, kw_only=True):
    """What still holds something of the agent, and for how long."""

    where: str
    until: str


class ErasureDone(Struct, kw_only=True):
    """All that was accepted up to `position` is erased. `repeated`: an earlier request with this key did it."""

    agent: AgentId
    position: PositionText
    idempotency_key: str
    repeated: bool
    redis: ErasedFromRedis
    postgres: ErasedFromPostgres
    not_yet_gone: list[NotYetGone]


class ErasureAccepted(Struct, kw_only=True):
    """Nothing up to `position` is read any more; it leaves Postgres with consolidation. The same request, with this
    key, answers the receipt then."""

    agent: AgentId
    position: PositionText
    idempotency_key: str
    repeated: bool


_BACKUPS = NotYetGone(where="backups and replicas' backups", until="they expire by your own rules")
_IN_REDIS = (
    NotYetGone(where="Redis: the append-only file and snapshots on disk", until="Redis rewrites them"),
    NotYetGone(
        where="Redis: digests of idempotency keys, under the agent's id",
        until="24 hours after the turn that each belongs to",
    ),
    NotYetGone(where="Redis: messages that it sent on channels", until="the channels' retention removes them"),
)
_ITSELF = NotYetGone(
    where="Redis: the erasure, under the agent's id",
    until="about an hour after the ttl of working memory, unless the agent begins anew",
)
_IN_POSTGRES = (
    NotYetGone(
        where="Postgres: dead rows and the write-ahead log",
        until="vacuum has run, and the log is recycled or its archive expires",
    ),
    NotYetGone(where="Postgres: a hash of the agent's id, and its id with a count of revisions", until="kept"),
)
NOT_YET_GONE: Mapping[Mode, Sequence[NotYetGone]] = {
    "Hybrid": (*_IN_REDIS, *_IN_POSTGRES, _BACKUPS),
    "Redis": (*_IN_REDIS, _ITSELF, _BACKUPS),
    "Postgres": (*_IN_POSTGRES, _BACKUPS),
}


def erasure_of(receipt: ErasureReceipt, mode: Mode) -> ErasureDone | ErasureAccepted:
    """An erasure as it is answered in this mode."""
    position = str(receipt.position)
    erased = receipt.erased
    if erased is None:
        return ErasureAccepted(
            agent=receipt.agent, position=position, idempotency_key=receipt.key, repeated=receipt.repeated
        )
    return ErasureDone(
        agent=receipt.agent,
        position=position,
        idempotency_key=receipt.key,
        repeated=receipt.repeated,
        redis=ErasedFromRedis(
            documents=erased.documents, recent_messages=erased.messages, journalled_events=erased.journalled
        ),
        postgres=ErasedFromPostgres(
            events=erased.events,
            embeddings=erased.embeddings,
            snapshots=erased.snapshots,
            dead_letters=erased.dead_letters,
            sessions=erased.sessions,
            knowledge=erased.knowledge,
        ),
        not_yet_gone=list(NOT_YET_GONE[mode]),
    )


def header_of(export: Export) -> list[ExportHeader | ExportedDocument]:
    """The lines that an export begins with."""
    head: list[ExportHeader | ExportedDocument] = [
        ExportHeader(agent=export.agent, position=str(export.position)),
    ]
    if export.document is not None:
        version = str(export.document.version)
        head.append(ExportedDocument(version=version, expired=export.expired, document=Raw(export.document.body)))
    return head


def session_line(session: SessionLine) -> ExportedSession:
    """A session as a line."""
    return ExportedSession(
        session=session.session,
        started_at=session.started_at,
        last_event_at=session.last_event_at,
        ended_at=session.ended_at,
        metadata=UNSET if session.metadata is None else Raw(session.metadata),
    )


def fact_line(fact: Fact) -> ExportedFact:
    """A piece of knowledge as a line."""
    return ExportedFact(fact=Raw(fact.row))


def unreadable_line(letter: LetterLine) -> ExportedUnreadable:
    """A document that was set aside as a line."""
    return ExportedUnreadable(
        id=letter.id,
        position=str(letter.position),
        reason=letter.reason,
        dead_at=letter.dead_at,
        base64=letter.raw,
    )


def letter_line(letter: LetterLine, event: Raw) -> ExportedLetter:
    """A dead letter as a line; `event` is its raw form as JSON."""
    return ExportedLetter(
        id=letter.id,
        position=str(letter.position),
        index=letter.index,
        session=letter.session,
        accepted_at=letter.accepted_at,
        reason=letter.reason,
        sqlstate=letter.sqlstate,
        event=event,
        dead_at=letter.dead_at,
    )
