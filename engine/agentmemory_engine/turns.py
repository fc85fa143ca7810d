"""Turns: what an agent reports at once, as values."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from agentmemory_engine.errors import InvalidInput, UnstorableText

T = TypeVar("T")
MAX_EVENTS = 1000
MAX_DEPTH = 200
MESSAGE = "message"
AN_OBJECT: dict[str, Any] = {"type": "object"}
"""What JSON that is kept as it was sent has to be: said in the description, and checked apart."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class Event(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that happened."""

    type: Annotated[str, Meta(min_length=1, max_length=64, description="`message`, `tool_call`, …: an open set")] = (
        MESSAGE
    )
    role: Annotated[str, Meta(max_length=64)] | None = None
    content: str | None = None
    at: Annotated[datetime, Meta(tz=True, description="when it happened (default: now); not its order")] | None = None
    payload: Annotated[Raw | UnsetType, Meta(description="any JSON; kept as it was sent")] = UNSET
    metadata: Annotated[Raw | UnsetType, Meta(description="to filter by", extra_json_schema=AN_OBJECT)] = UNSET


class DocumentChange(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A change to the working-memory document: exactly one of its fields is given."""

    set: Annotated[Raw | UnsetType, Meta(description="the new document", extra_json_schema=AN_OBJECT)] = UNSET
    merge: Annotated[
        Raw | UnsetType, Meta(description="a JSON Merge Patch (RFC 7396)", extra_json_schema=AN_OBJECT)
    ] = UNSET
    patch: Annotated[
        Raw | UnsetType, Meta(description="a JSON Patch (RFC 6902)", extra_json_schema={"type": "array"})
    ] = UNSET
    delete: bool = False


class Turn(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Events and, optionally, a change to the document, applied together or not at all."""

    session: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    events: Annotated[list[Event], Meta(max_length=MAX_EVENTS)] = []
    working_memory: DocumentChange | None = None


def check_text(body: bytes) -> None:
    """Refuse JSON whose strings Postgres cannot store: NUL and lone surrogates (RFC 8259 section 8.2).

    Raises UnstorableText.
    """
    if _SUSPECT.search(body) is None:
        return
    for text in _strings(json.loads(body)):
        if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UnstorableText("A string holds \\u0000 or half of a surrogate pair; remove it, nothing was stored.")


def _strings(value: Any) -> list[str]:
    """Every string in a JSON value, keys included."""
    found, pending = [], [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            found.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return found


def parse_turn(body: bytes) -> Turn:
    """A turn from its JSON. Raises InvalidInput or UnstorableText."""
    turn = decode(body, Turn)
    check_turn(turn)
    return turn


def decode(body: bytes, kind: type[T]) -> T:
    """A value from its JSON. Raises InvalidInput that says where it is wrong, or UnstorableText."""
    try:
        if not body.isascii():
            body.decode()
        _check_depth(body)
        value = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The JSON is not what is wanted here: {error}.") from None
    check_text(body)
    return value


def _check_depth(body: bytes) -> None:
    """Raises InvalidInput for deep nesting, which later readers of the value (Postgres among them) would refuse."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidInput(f"The JSON is nested more than {MAX_DEPTH} deep.")


def check_turn(turn: Turn) -> None:
    """Rules that the types do not say. Raises InvalidInput."""
    if not turn.events and turn.working_memory is None:
        raise InvalidInput("A turn has at least one event, or a change of the document in `working_memory`.")
    for index, event in enumerate(turn.events):
        if event.content is None and event.payload is UNSET:
            raise InvalidInput(f"events[{index}] has neither `content` nor `payload`.")
        if event.at is not None:
            check_moment(event.at)
        if event.metadata is not UNSET and not bytes(event.metadata).lstrip().startswith(b"{"):
            raise InvalidInput(f"events[{index}].metadata is not a JSON object.")
    change = turn.working_memory
    if change is not None and _given(change) != 1:
        raise InvalidInput("`working_memory` has exactly one of `set`, `merge`, `patch` and `delete`.")


def check_moment(at: datetime) -> datetime:
    """Answer the time as it is. Raises InvalidInput for one that is outside the years 1 to 9999 in UTC."""
    try:
        at.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"The time {at.isoformat()} is outside the years 1 to 9999 in UTC.") from None
    return at


def _given(change: DocumentChange) -> int:
    return sum(part is not UNSET for part in (change.set, change.merge, change.patch)) + change.delete


def fingerprint(turn: Turn, events: bytes) -> bytes:
    """8 bytes that tell two bodies apart under one idempotency key; `events` are the turn's, as in the journal."""
    digest = blake2b(len(events).to_bytes(8, "big"), digest_size=8)
    digest.update(events)
    digest.update(msgspec.json.encode((turn.session, turn.working_memory)))
    return digest.digest()


def encode_events(turn: Turn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The JSON array for the journal, and (index, JSON) of each message for the recent window."""
    texts = [msgspec.json.encode(event) for event in turn.events]
    window = [(index, texts[index]) for index, event in enumerate(turn.events) if event.type == MESSAGE]
    return b"[" + b",".join(texts) + b"]", window
