"""A conversation in JSON Lines, as turns that are the same however often it is imported. No network, no clock.

Each line is an object with `id`, `at`, `session`, `speaker` and `content`; `session` and `speaker` may be left out.
What else stands in it becomes the event's payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agentmemory.encoding import encode
from agentmemory.models import Event, NewEvent

LINES_A_TURN = 64
BYTES_A_BLOCK = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NAMESPACE = "agentmemory-import-1"


class _Line(Struct):
    id: Annotated[str, Meta(min_length=1, max_length=512)] | int
    at: Annotated[datetime, Meta(tz=True)]
    content: str
    session: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    speaker: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class BadLine(ValueError):
    """A line that cannot be imported: its number, from 1, and what is wrong with it."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number
        self.why = why


@dataclass(frozen=True)
class Utterance:
    """A good line: its number, where it ends in the file (in bytes), and what it says."""

    number: int
    end: int
    session: str | None
    event: NewEvent


@dataclass(frozen=True)
class ImportedTurn:
    """Lines that are sent together; `last` is the number of the last of them."""

    session: str | None
    events: Sequence[NewEvent]
    last: int
    key: str


class LineReader:
    """Reads lines in order. Bad ones raise BadLine, or are gathered in `bad` where they shall be skipped."""

    def __init__(self, *, skip_bad: bool = False) -> None:
        self.bad: list[BadLine] = []
        self._skip_bad = skip_bad
        self._line_of: dict[str, int] = {}

    def read(self, lines: Iterable[bytes]) -> Iterator[Utterance]:
        """The utterances of a file; empty lines are passed over.

        Raises:
            BadLine: unless they are skipped.
        """
        end = 0
        for number, line in enumerate(lines, start=1):
            end += len(line)
            if not line.strip():
                continue
            try:
                known, rest = parse_line(number, line)
                self._claim(number, str(known.id))
            except BadLine as bad:
                if not self._skip_bad:
                    raise
                self.bad.append(bad)
            else:
                yield Utterance(number, end, known.session, _event(known, rest))

    def _claim(self, number: int, name: str) -> None:
        first = self._line_of.setdefault(name, number)
        if first != number:
            raise BadLine(number, f"the id {name!r} stands on line {first} already")


def parse_line(number: int, line: bytes) -> tuple[_Line, dict[str, Any]]:
    """What one line says, and its further members.

    Raises:
        BadLine: it is no JSON object, or a member of it is missing, of the wrong kind, or cannot be stored.
    """
    try:
        members = msgspec.json.decode(line.removeprefix(BYTE_ORDER_MARK), type=dict[str, Any])
        known = msgspec.convert(members, _Line)
        suspect = any("\x00" in text for text in _texts(members))
        known.at.astimezone(UTC)
        encode(members)  # what is nested too deeply to be sent shows here, not in the middle of an import
    except msgspec.ValidationError as error:
        raise BadLine(number, _explain(error)) from None
    except OverflowError:
        raise BadLine(number, "`at` is outside the years 1 to 9999") from None
    except (ValueError, RecursionError) as error:
        raise BadLine(number, f"no JSON object in UTF-8 ({error})") from None
    if suspect:
        raise BadLine(number, "a text in it holds \\u0000, which cannot be stored")
    return known, {name: value for name, value in members.items() if name not in _Line.__struct_fields__}


def turns(utterances: Iterable[Utterance], *, agent: str, lines_a_turn: int = LINES_A_TURN) -> Iterator[ImportedTurn]:
    """The same turns for the same lines.

    A turn holds consecutive lines of one session that lie in one block of `lines_a_turn` lines and of 1 MiB, counted
    from the start of the file.
    """

    def block(one: Utterance) -> tuple[int, int, str | None]:
        return (one.number - 1) // lines_a_turn, one.end // BYTES_A_BLOCK, one.session

    for (_, _, session), group in groupby(utterances, key=block):
        members = list(group)
        events = [member.event for member in members]
        yield ImportedTurn(session, events, members[-1].number, _key(agent, session, events))


def fingerprint(session: str | None, event: NewEvent | Event) -> bytes:
    """16 bytes that a line and the event that it became have in common, and no other event has."""
    # Without the payload: a number in it may come back written otherwise.
    metadata = event.metadata or {}
    at = event.at and event.at.astimezone(UTC)
    said = encode([metadata.get("import_id"), metadata.get("speaker"), session, at, event.content])
    return hashlib.blake2b(said, digest_size=16).digest()


def _key(agent: str, session: str | None, events: Sequence[NewEvent]) -> str:
    # The name of the file has no part in it: the same lines from another place are the same events.
    ends = [event.metadata and event.metadata["import_id"] for event in (events[0], events[-1])]
    body = encode([NAMESPACE, agent, session, ends, events])
    return f"import-{hashlib.blake2b(body, digest_size=20).hexdigest()}"


def _event(known: _Line, rest: Mapping[str, Any]) -> NewEvent:
    metadata: dict[str, Any] = {"import_id": known.id}
    if known.speaker is not None:
        metadata["speaker"] = known.speaker
    return NewEvent(role=known.speaker, content=known.content, at=known.at, payload=rest or None, metadata=metadata)


def _explain(error: msgspec.ValidationError) -> str:
    what, _, where = str(error).partition(" - at `$.")
    return f"`{where.rstrip('`')}`: {what}" if where else what


def _texts(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
