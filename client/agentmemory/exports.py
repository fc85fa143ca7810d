"""An export as it is read again: turns, rows and a document for another agent. No network, no clock.

Ids follow from the agent and the key of a turn, so that those of a copy are others. The key of each turn follows from
the agent and the ids in the file: the same file imported twice is there once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

EVENTS_A_TURN = 1000
BYTES_A_TURN = 2 << 20
BYTES_OF_ROWS = 1 << 19
NAMESPACE = "agentmemory-copy-1"


class ExportHeader(Struct, tag_field="kind", tag="export"):
    """The first line."""

    format: Literal[1]
    agent: str
    position: str


class _Document(Struct, tag_field="kind", tag="document"):
    document: Raw


class _Session(Struct, tag_field="kind", tag="session"):
    session: str


class _Event(Struct, tag_field="kind", tag="event"):
    id: str
    position: str
    at: str
    type: str
    role: str | None = None
    content: str | None = None
    payload: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET
    session: str | None = None


class _Fact(Struct, tag_field="kind", tag="knowledge"):
    fact: dict[str, Raw]


class _Letter(Struct, tag_field="kind", tag="dead_letter"):
    id: str
    accepted_at: str
    event: Raw
    session: str | None = None


class _Unreadable(Struct, tag_field="kind", tag="unreadable_document"):
    """It stays behind: a copy begins with what can be read."""

    id: str


class ExportEnd(Struct, tag_field="kind", tag="end"):
    """The last line, with how many lines of each kind there are."""

    sessions: int
    events: int
    knowledge: int
    dead_letters: int
    unreadable: int = 0


_Line = ExportHeader | _Document | _Session | _Event | _Fact | _Letter | _Unreadable | ExportEnd
_decoder = msgspec.json.Decoder(_Line)


class _NewEvent(Struct, omit_defaults=True):
    type: str
    role: str | None
    content: str | None
    at: str
    payload: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET


class _NewTurn(Struct, omit_defaults=True):
    events: Sequence[Any]
    session: str | None = None


class BadExport(ValueError):
    """The file is no whole export; the message says where it is wrong."""


@dataclass(frozen=True)
class Contents:
    """What is in a file: its first and last lines, and the events that pieces of knowledge name as their sources."""

    header: ExportHeader
    end: ExportEnd
    sources: frozenset[str]


@dataclass(frozen=True)
class CopiedTurn:
    """A turn to be recorded: its JSON, its key, the ids that its events have in the file.

    `dead`: it is a dead letter, which Postgres will look at again.
    """

    body: bytes
    key: str
    ids: tuple[str, ...]
    dead: bool = False


def is_export(first_line: bytes) -> bool:
    """Whether a file that begins so is an export."""
    try:
        return isinstance(_decoder.decode(first_line), ExportHeader)
    except msgspec.MsgspecError:
        return False


def survey(lines: Iterable[bytes]) -> Contents:
    """Read all of it once.

    Raises:
        BadExport: a line is not what it should be, or the file was cut off.
    """
    counts: dict[type[Struct], int] = dict.fromkeys((_Session, _Event, _Fact, _Letter, _Unreadable), 0)
    header: ExportHeader | None = None
    sources: set[str] = set()
    for number, raw in enumerate(lines, start=1):
        line = _parse(number, raw)
        if (number == 1) != isinstance(line, ExportHeader):
            raise BadExport(f"line {number}: an export begins with its one line of kind `export`")
        match line:
            case ExportHeader():
                header = line
            case ExportEnd():
                told = line.sessions, line.events, line.knowledge, line.dead_letters, line.unreadable
                if told != tuple(counts.values()) or header is None:
                    raise BadExport(f"line {number}: it counts other lines than there are")
                return Contents(header, line, frozenset(sources))
            case _Fact():
                sources.update(_sources(line.fact))
        if type(line) in counts:
            counts[type(line)] += 1
    raise BadExport("its last line is missing, so that it was cut off: export the agent again")


def _parse(number: int, raw: bytes) -> _Line:
    try:
        line: _Line = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadExport(f"line {number}: {error}") from None
    return line


def turns(lines: Iterable[bytes], agent: str) -> Iterator[CopiedTurn]:
    """The events and dead letters of an export as turns of `agent`, in order; those of one turn stay together."""
    group: list[_Event] = []
    size = 0
    for number, raw in enumerate(lines, start=1):
        line = _parse(number, raw)
        room = len(group) < EVENTS_A_TURN and size + len(raw) <= BYTES_A_TURN
        if group and not (isinstance(line, _Event) and room and line.position == group[0].position):
            yield _turn(group, agent)
            group, size = [], 0
        if isinstance(line, _Event):
            group.append(line)
            size += len(raw)
        elif isinstance(line, _Letter):
            yield _dead_turn(line, agent)
    if group:
        yield _turn(group, agent)


def _turn(group: Sequence[_Event], agent: str) -> CopiedTurn:
    events = [
        _NewEvent(
            type=line.type, role=line.role, content=line.content, at=line.at, payload=line.payload,
            metadata=UNSET if line.metadata is UNSET else Raw(canonical(bytes(line.metadata))),
        )
        for line in group
    ]  # fmt: skip
    body = msgspec.json.encode(_NewTurn(events, group[0].session))
    ids = tuple(line.id for line in group)
    return CopiedTurn(body, _key(agent, *ids), ids)


def _dead_turn(line: _Letter, agent: str) -> CopiedTurn:
    """A letter as a turn: Postgres refuses it again, or takes it by now."""
    raw = bytes(line.event)
    events: Any
    try:
        found = msgspec.json.decode(raw, type=list[dict[str, Raw]] | dict[str, Raw])
    except msgspec.DecodeError:
        events = [Raw(raw)]  # no event: the sidecar will say so
    else:
        given: list[dict[str, Any]] = [*found] if isinstance(found, list) else [found]
        events = [{"at": line.accepted_at, **event} for event in given]
    body = msgspec.json.encode(_NewTurn(events, line.session))
    return CopiedTurn(body, _key(agent, "dead letter", line.id), (line.id,), dead=True)


def document(lines: Iterable[bytes]) -> bytes | None:
    """The document in an export; None where there is none."""
    for number, raw in enumerate(lines, start=1):
        line = _parse(number, raw)
        if isinstance(line, _Document):
            return bytes(line.document)
        if isinstance(line, _Session | _Event):
            return None
    return None


def document_key(body: bytes, agent: str) -> str:
    """The key under which a document is written."""
    return _key(agent, "document", hashlib.blake2b(body, digest_size=16).hexdigest())


def rows(lines: Iterable[bytes], ids: Mapping[str, str]) -> Iterator[bytes]:
    """The lines of sessions and knowledge, in blocks that a sidecar takes at once.

    `ids`: what events are called in the copy; the sources of knowledge name them.
    """
    block = bytearray()
    for number, raw in enumerate(lines, start=1):
        line = _parse(number, raw)
        if isinstance(line, _Session | _Fact):
            new = raw.strip() if isinstance(line, _Session) else _renamed(line, ids)
            if block and len(block) + len(new) > BYTES_OF_ROWS:
                yield bytes(block)
                block.clear()
            block += new + b"\n"
    if block:
        yield bytes(block)


def _renamed(line: _Fact, ids: Mapping[str, str]) -> bytes:
    sources = [ids.get(source, source) for source in _sources(line.fact)]
    fact: dict[str, Any] = dict(line.fact)
    if sources:
        fact["sources"] = sources
    return msgspec.json.encode({"kind": "knowledge", "fact": fact})


def _sources(fact: Mapping[str, Raw]) -> list[str]:
    try:
        return msgspec.json.decode(fact.get("sources", Raw(b"[]")), type=list[str])
    except msgspec.DecodeError:
        return []


def canonical(body: bytes) -> bytes:
    """JSON in one spelling, as Postgres would spell the numbers.

    The metadata of an event is spelt as it was sent while it is pending, and in Postgres' own way after; both are the
    same body under one key.
    """
    value = json.loads(body, parse_float=Decimal)
    return msgspec.json.encode(_spelt(value), order="sorted")


def _spelt(value: Any) -> Any:
    match value:
        case dict():
            return {name: _spelt(one) for name, one in value.items()}
        case list():
            return [_spelt(one) for one in value]
        case Decimal():
            return Raw(f"{abs(value) if value.is_zero() else value:f}".encode())
        case int() if not isinstance(value, bool):
            return Raw(str(value).encode())
    return value


def _key(agent: str, *parts: str) -> str:
    named = "\n".join((NAMESPACE, agent, *parts))
    return f"copy-{hashlib.blake2b(named.encode(), digest_size=20).hexdigest()}"
