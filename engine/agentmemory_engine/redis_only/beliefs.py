"""Beliefs: what becomes of an agent's facts by a request, as Postgres would have it: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta, Raw

from agentmemory_engine.answers import Fact
from agentmemory_engine.facts import Belief, FactChange, FactFilter, NewFact, fact_of
from agentmemory_engine.jsonb import given_json, is_same_json, json_of
from agentmemory_engine.knowledge import no_fact, no_longer_believed, repeated

_Moment = Annotated[datetime, Meta(tz=True)]
_HEX = "\\x"
_NONE = Raw(b"null")


class FactRow(msgspec.Struct, kw_only=True, frozen=True):
    """A version of a fact, with the columns of agent_knowledge, as an export has it."""

    id: UUID
    origin: UUID
    key: str | None = None
    topic: str
    content: str
    confidence: Annotated[float, Meta(ge=0, le=1)]
    sources: list[UUID]
    metadata: Raw = _NONE
    believed_from: _Moment
    believed_until: _Moment | None = None
    fingerprint: Annotated[str, Meta(pattern=r"^\\x([0-9a-fA-F]{2})*$")]

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes) -> FactRow:
        return msgspec.json.decode(value, type=cls)

    @property
    def text(self) -> str:
        """What is embedded of it."""
        return f"{self.topic}: {self.content}"

    @property
    def row(self) -> dict[str, Any]:
        """As facts.fact_of takes it, with the fingerprint."""
        members = msgspec.structs.asdict(self)
        members["metadata"] = None if self.metadata == _NONE else bytes(self.metadata).decode()
        return members | {"fingerprint": bytes.fromhex(self.fingerprint.removeprefix(_HEX))}

    @property
    def fact(self) -> Fact:
        return fact_of(self.row)

    def is_believed(self, at: datetime | None) -> bool:
        """At that time (None: now)."""
        if at is None:
            return self.believed_until is None
        return self.believed_from <= at and (self.believed_until is None or self.believed_until > at)

    def says(self, belief: Belief) -> bool:
        """Whether that is what it says already."""
        mine = self.topic, self.content, self.confidence, self.sources
        metadata = None if belief.metadata is None else belief.metadata.encode()
        return mine == (belief.topic, belief.content, belief.confidence, belief.sources) and is_same_json(
            json_of(self.fact.metadata), json_of(metadata)
        )


class Beliefs:
    """An agent's facts, and what a request changes in them: `changed` by id, and what is `gone`."""

    def __init__(self, rows: Mapping[UUID, FactRow], now: datetime) -> None:
        self._rows = dict(rows)
        self._now = now
        self.changed: dict[UUID, FactRow] = {}
        self.gone: list[UUID] = []
        self.added = 0

    def put(self, identity: UUID, new: NewFact, belief: Belief, body: bytes) -> tuple[Fact, bool]:
        """As Knowledge.put. Raises KeyReused."""
        if (known := self._rows.get(identity)) is not None:
            return repeated(known.row, body), False
        return self._succeed(identity, self._current(new.key), new.key, belief, body)

    def change(self, identity: UUID, target: UUID, change: FactChange, body: bytes) -> tuple[Fact, bool]:
        """As Knowledge.change, of the fact `target`. Raises NoFact, FactEnded, KeyReused, InvalidInput."""
        if (known := self._rows.get(identity)) is not None:
            return repeated(known.row, body), False
        row = self._existing(target)
        if row.believed_until is not None:
            raise no_longer_believed(self._successor(row))
        return self._succeed(identity, row, row.key, Belief.after(row.fact, change), body)

    def end(self, target: UUID) -> Fact:
        """As Knowledge.end. Raises NoFact, FactEnded."""
        row = self._existing(target)
        if row.believed_until is None:
            return self._end(row).fact
        if (current := self._successor(row)) is not None:
            raise no_longer_believed(current)
        return row.fact

    def erase(self, target: UUID) -> int:
        """As Knowledge.erase. Raises NoFact."""
        row = self._existing(target)
        self.gone = [
            one.id
            for one in self._rows.values()
            if one.origin == row.origin or (row.key is not None and one.key == row.key)
        ]
        return len(self.gone)

    def take(self, rows: Iterable[FactRow]) -> int:
        """Those of an import that are not there and contradict nothing that is believed; how many.

        Raises InvalidInput.
        """
        for row in rows:
            given_json(row.row["metadata"])
            if row.id not in self._rows and (row.believed_until is not None or self._current(row.key) is None):
                self._store(row)
                self.added += 1
        return self.added

    def _succeed(
        self, identity: UUID, before: FactRow | None, key: str | None, belief: Belief, body: bytes
    ) -> tuple[Fact, bool]:
        """Believe it in the place of `before` (None: of nothing), unless that says the same."""
        given_json(belief.metadata)
        since = self._free_from(key)
        if before is not None:
            if before.says(belief):
                return before.fact, False
            since = self._end(before).believed_until or since
        row = FactRow(
            id=identity,
            origin=identity if before is None else before.origin,
            key=key,
            topic=belief.topic,
            content=belief.content,
            confidence=belief.confidence,
            sources=belief.sources,
            metadata=_NONE if belief.metadata is None else Raw(belief.metadata.encode()),
            believed_from=since,
            fingerprint=_HEX + body.hex(),
        )
        self._store(row)
        self.added += 1
        return row.fact, True

    def _free_from(self, key: str | None) -> datetime:
        """Of one key, beliefs follow each other without an overlap, whatever the clock does."""
        ends = (row.believed_until for row in self._rows.values() if key is not None and row.key == key)
        return max(filter(None, (self._now, *ends)))

    def _end(self, row: FactRow) -> FactRow:
        until = max(self._now, row.believed_from + timedelta(microseconds=1))
        return self._store(msgspec.structs.replace(row, believed_until=until))

    def _store(self, row: FactRow) -> FactRow:
        self._rows[row.id] = self.changed[row.id] = row
        return row

    def _existing(self, identity: UUID) -> FactRow:
        row = self._rows.get(identity)
        if row is None:
            raise no_fact()
        return row

    def _current(self, key: str | None) -> FactRow | None:
        if key is None:
            return None
        return next((row for row in self._rows.values() if row.key == key and row.believed_until is None), None)

    def _successor(self, row: FactRow) -> UUID | None:
        """The version of the same fact that is believed now."""
        same = (one.id for one in self._rows.values() if one.origin == row.origin and one.believed_until is None)
        return next(same, None)


def listed(
    rows: Mapping[UUID, FactRow], wanted: FactFilter, *, every: bool, versions_of: UUID | None
) -> tuple[list[Fact], datetime | None]:
    """The facts of a filter, newest belief first, and up to when what was written is seen; see list_facts.sql."""
    wanted.check()
    _, _, _, _, at = wanted.parameters()
    target = None if versions_of is None else rows.get(versions_of)
    found = [
        row.fact
        for row in rows.values()
        if (versions_of is None or (target is not None and row.origin == target.origin))
        and ((every and at is None) or row.is_believed(at))
    ]
    found = [fact for fact in found if wanted.matches(fact)]
    found.sort(key=lambda fact: (fact.believed_from, fact.id), reverse=True)
    times = [row.believed_from for row in rows.values()]
    times += [row.believed_until for row in rows.values() if row.believed_until is not None]
    return found, max(times, default=None)
