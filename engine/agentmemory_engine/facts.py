"""Facts as they are told: what is to be believed from now on, and how a belief changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from agentmemory_engine.answers import Fact
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.jsonb import contains, given_json, json_of
from agentmemory_engine.turns import check_moment
from agentmemory_engine.working import merge_object

Topic = Annotated[str, Meta(min_length=1, max_length=256, description="what it is about, to filter by")]
Content = Annotated[str, Meta(min_length=1, max_length=32_768, description="the fact itself, as a text")]
Confidence = Annotated[float, Meta(ge=0, le=1)]
Sources = Annotated[list[UUID], Meta(max_length=1000, description="ids of the events it was learnt from")]
FactKey = Annotated[str, Meta(min_length=1, max_length=256, description="of one key, one fact is believed at a time")]


class NewFact(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fact to believe. With a `key` it takes the place of the one that is believed under it."""

    topic: Topic
    content: Content
    key: FactKey | None = None
    confidence: Confidence = 1.0
    sources: Sources = []
    metadata: Annotated[dict[str, Raw] | None, Meta(description="to filter by")] = None


class FactChange(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is."""

    topic: Topic | UnsetType = UNSET
    content: Content | UnsetType = UNSET
    confidence: Confidence | UnsetType = UNSET
    sources: Sources | UnsetType = UNSET
    metadata: Annotated[dict[str, Raw] | UnsetType | None, Meta(description="a JSON Merge Patch; null removes all")] = (
        UNSET
    )


@dataclass(frozen=True, kw_only=True)
class FactFilter:
    """Which facts. `metadata` is a JSON object that a fact's contains; `at` asks for what was believed then."""

    key: str | None = None
    topics: list[str] | None = None
    metadata: bytes | None = None
    min_confidence: float | None = None
    at: datetime | None = None

    def parameters(self) -> tuple[Any, ...]:
        """As the statements take them: key, topics, metadata, least confidence, time. Raises InvalidInput."""
        metadata = None if self.metadata is None else self.metadata.decode()
        at = None if self.at is None else check_moment(self.at)
        return self.key, self.topics, metadata, self.min_confidence, at

    @cached_property
    def _wanted(self) -> Any:
        return given_json(self.metadata)

    def check(self) -> None:
        """Raises InvalidInput for what no fact can be compared with."""
        self.parameters()
        given_json(self.metadata)

    def matches(self, fact: Fact) -> bool:
        """Whether the fact passes, whenever it was believed, as the same conditions in SQL would have it."""
        return (
            (self.key is None or fact.key == self.key)
            and (self.topics is None or fact.topic in self.topics)
            and (self.min_confidence is None or fact.confidence >= self.min_confidence)
            and (self.metadata is None or contains(json_of(fact.metadata), self._wanted))
        )


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What one version of a fact says."""

    topic: str
    content: str
    confidence: float
    sources: list[UUID]
    metadata: str | None

    @classmethod
    def of(cls, new: NewFact) -> Belief:
        """What is told. Raises InvalidInput."""
        metadata = None if new.metadata is None else msgspec.json.encode(new.metadata).decode()
        return cls(
            topic=_some(new.topic, "topic"),
            content=_some(new.content, "content"),
            confidence=new.confidence,
            sources=new.sources,
            metadata=metadata,
        )

    @classmethod
    def after(cls, fact: Fact, change: FactChange) -> Belief:
        """What the fact says after the change. Raises InvalidInput."""
        metadata = None if fact.metadata is None else fact.metadata.decode()
        if change.metadata is not UNSET:
            metadata = merge_object(metadata, change.metadata)
        return cls(
            topic=fact.topic if change.topic is UNSET else _some(change.topic, "topic"),
            content=fact.content if change.content is UNSET else _some(change.content, "content"),
            confidence=fact.confidence if change.confidence is UNSET else change.confidence,
            sources=fact.sources if change.sources is UNSET else change.sources,
            metadata=metadata,
        )

    def columns(self) -> tuple[Any, ...]:
        """As the statements take it: topic, content, confidence, sources, metadata."""
        return self.topic, self.content, self.confidence, self.sources, self.metadata


def _some(text: str, member: str) -> str:
    if not text.strip():
        raise InvalidInput(f"`{member}` is blank; say something.")
    return text


def fingerprint(request: NewFact | FactChange, target: UUID | None = None) -> bytes:
    """8 bytes that tell two requests apart under one idempotency key."""
    return blake2b(msgspec.json.encode((target, request)), digest_size=8).digest()


def fact_of(row: Any) -> Fact:
    """A fact from a row of agent_knowledge."""
    return Fact(
        id=row["id"],
        key=row["key"],
        topic=row["topic"],
        content=row["content"],
        confidence=row["confidence"],
        sources=list(row["sources"]),
        metadata=None if row["metadata"] is None else row["metadata"].encode(),
        believed_from=row["believed_from"],
        believed_until=row["believed_until"],
        origin=row["origin"],
    )
