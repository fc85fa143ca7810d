"""Working memory: the document, its versions and changes, the recent window."""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import jsonpatch
import jsonpointer
import msgspec
from msgspec import UNSET, Raw

from agentmemory_engine.answers import Document
from agentmemory_engine.errors import (
    DocumentExpired,
    InvalidInput,
    NoDocument,
    NoSnapshot,
    TooLarge,
    UnreadableDocument,
)
from agentmemory_engine.intake import Foreign, Intake
from agentmemory_engine.journal import ABSENT, ANY, NEVER, Change
from agentmemory_engine.keys import digest_key
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import DocumentChange, decode

WRITTEN = "w"
DELETED = "x"


class Stored(NamedTuple):
    """A document as it stands in Redis: a header line, then the bytes that were sent.

    `writer` and `fingerprint` are the key and body of the turn that wrote it, `events` says how many events that had.
    """

    version: Entry
    kind: str
    writer: bytes
    fingerprint: bytes
    events: int
    body: bytes


_HEADER = re.compile(rb"\d{1,18}-\d{1,18} [wx] ([0-9a-f]{2})+ ([0-9a-f]{2})+ \d{1,9}")


class Unreadable(NamedTuple):
    """What stands in the place of a document and is none: all of it (`value`; of no string, its dump), and what of it
    is to be kept (`body`)."""

    value: bytes
    body: bytes
    version: Entry | None
    reason: str


def parse_stored(value: bytes) -> Stored:
    """Take a stored document apart. Raises ValueError for what was not written as one."""
    header, _, body = value.partition(b"\n")
    if _HEADER.fullmatch(header) is None:
        raise ValueError("it does not begin as a document of this memory does")
    version, kind, writer, fingerprint, events = header.decode().split(" ")
    return Stored(Entry.parse(version), kind, bytes.fromhex(writer), bytes.fromhex(fingerprint), int(events), body)


def format_stored(stored: Stored) -> bytes:
    """Put it together again; the reverse of parse_stored."""
    writer, fingerprint = stored.writer.hex(), stored.fingerprint.hex()
    return f"{stored.version} {stored.kind} {writer} {fingerprint} {stored.events}\n".encode() + stored.body


def parse_document(body: bytes) -> Any:
    """A document for changing: numbers that are not small integers stay the text they were sent as."""
    return json.loads(body, parse_float=_verbatim, parse_int=_small_or_verbatim)


def _verbatim(text: str) -> Raw:
    return Raw(text.encode())


def _small_or_verbatim(text: str) -> int | Raw:
    return int(text) if len(text) < 18 else Raw(text.encode())


def merge(document: Any, patch: Any) -> Any:
    """Apply a JSON Merge Patch (RFC 7396); the document is left alone."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def merge_object(text: str | None, patch: Mapping[str, Raw] | None) -> str | None:
    """A JSON object after a merge patch of its members (None: nothing is left, or was there)."""
    if patch is None:
        return None
    merged = merge(None if text is None else parse_document(text.encode()), parse_document(msgspec.json.encode(patch)))
    return msgspec.json.encode(merged).decode()


def apply_change(body: bytes | None, change: DocumentChange, *, limit: int = 1 << 20) -> bytes:
    """The document's bytes after a merge or patch of what is there (None: nothing).

    Raises InvalidInput for a patch that does not apply or a result that is no JSON object, TooLarge for a patch that
    copies more than `limit` bytes.
    """
    document = parse_document(body) if body is not None else {}
    if change.merge is not UNSET:
        changed = merge(document, parse_document(bytes(change.merge)))
    else:
        changed = _apply_patch(document, parse_document(bytes(change.patch)), limit)  # type: ignore[arg-type]
    return check_object(msgspec.json.encode(changed))


def _apply_patch(document: Any, operations: Any, limit: int) -> Any:
    if not isinstance(operations, list):
        raise InvalidInput("A JSON Patch is an array of operations.")
    copied = 0
    try:
        for operation in operations:
            # Thirty copies of the whole into itself, each twice as large as the one before, would fill any memory.
            copied += _size_of_copy(document, operation)
            if copied > limit:
                raise TooLarge(f"The JSON Patch copies more than {limit} bytes, which is the limit of a document.")
            document = jsonpatch.apply_patch(document, [operation], in_place=True)
    except RecursionError:
        raise InvalidInput("The JSON Patch nests the document too deep.") from None
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, AttributeError) as error:
        raise InvalidInput(f"The JSON Patch does not apply to the document: {error}.") from None
    return document


def _size_of_copy(document: Any, operation: Any) -> int:
    if not isinstance(operation, dict) or operation.get("op") != "copy" or not isinstance(operation.get("from"), str):
        return 0
    return len(msgspec.json.encode(jsonpointer.resolve_pointer(document, operation["from"], None)))


def check_object(body: bytes) -> bytes:
    """Answer the bytes as they are. Raises InvalidInput unless they are a JSON object, UnstorableText."""
    decode(body, dict[str, Raw])
    return body


def fault_of(body: bytes) -> str | None:
    """Why these bytes are no document; None where they are one."""
    try:
        check_object(body)
    except InvalidInput as error:
        return str(error)
    return None


def _unreadable(reason: str, version: Position | None) -> UnreadableDocument:
    return UnreadableDocument(
        f"What stands in the place of the document cannot be read: {reason} Hydrate sets it aside among the dead "
        'letters, and with "restore": true takes the last snapshot that can be read; a PUT writes a new document.',
        version=None if version is None else str(version),
    )


class Documents(ABC):
    """Reads current documents, and prepares their changes."""

    def __init__(self, intake: Intake, settings: Settings) -> None:
        self._intake = intake
        self._settings = settings

    async def stored(self, agent: str) -> Stored | None:
        """The document, a deletion's tombstone, or None. Raises UnreadableDocument, ShardClosed or StoreUnavailable."""
        found = await self._look(agent)
        if isinstance(found, Unreadable):
            version = None if found.version is None else Position(self._settings.shard_of(agent), found.version)
            raise _unreadable(found.reason, version)
        return found

    async def unreadable(self, agent: str) -> Unreadable | None:
        """What stands in the place of a live document and is none. Raises ShardClosed or StoreUnavailable."""
        found = await self._look(agent)
        return found if isinstance(found, Unreadable) else None

    async def _look(self, agent: str) -> Stored | Unreadable | None:
        try:
            value = await self._intake.document(agent)
        except Foreign as foreign:
            return Unreadable(foreign.value, foreign.value, None, "the key holds no string.")
        if value is None:
            return None
        try:
            stored = parse_stored(value)
        except ValueError as error:
            return Unreadable(value, value, None, f"{error}.")
        fault = fault_of(stored.body) if stored.kind == WRITTEN else None
        return stored if fault is None else Unreadable(value, stored.body, stored.version, fault)

    async def read(self, agent: str) -> Document:
        """The current document.

        Raises NoDocument (never written, or deleted), DocumentExpired, UnreadableDocument, ShardClosed,
        StoreUnavailable.
        """
        stored = await self.stored(agent)
        if stored is not None:
            if stored.kind == DELETED:
                raise NoDocument("The agent's working memory was deleted; a write starts a new one.")
            return Document(Position(self._settings.shard_of(agent), stored.version), stored.body)
        raise await self._why_none(agent)

    @abstractmethod
    async def _why_none(self, agent: str) -> NoDocument | DocumentExpired | UnreadableDocument:
        """Why there is neither a document nor a deletion's tombstone. Raises StoreUnavailable."""

    @abstractmethod
    async def last_snapshot(self, agent: str) -> Document | None:
        """The newest snapshot, or None where there is none or the document was deleted. Raises StoreUnavailable."""

    @abstractmethod
    async def snapshot(self, agent: str, version: Position) -> Document:
        """A kept snapshot. Raises NoSnapshot, UnreadableDocument or StoreUnavailable."""

    async def current(self, agent: str) -> Document | None:
        """The document as it is in Redis, or None. Raises UnreadableDocument, ShardClosed or StoreUnavailable."""
        stored = await self.stored(agent)
        if stored is None or stored.kind == DELETED:
            return None
        return Document(Position(self._settings.shard_of(agent), stored.version), stored.body)

    async def prepare(
        self, agent: str, change: DocumentChange | None, expected: str, *, key: str, fingerprint: bytes
    ) -> Change:
        """The change as the script takes it: a whole document, and the version it was made from.

        A merge or patch that this very turn has made already is not made again, so that a retry cannot fail on it.

        Raises InvalidInput, TooLarge, UnreadableDocument, ShardClosed, StoreUnavailable.
        """
        if change is None:
            return Change()
        if change.delete:
            return Change(DELETED, b"", expected)
        if change.set is not UNSET:
            body, version = check_object(bytes(change.set)), expected
        else:
            known, stored = await asyncio.gather(self._intake.is_known(agent, key), self.stored(agent))
            if known:
                return Change(WRITTEN, b"{}", NEVER)
            written = stored is not None and stored.kind == WRITTEN
            if stored is not None and written and (stored.writer, stored.fingerprint) == (digest_key(key), fingerprint):
                return Change(WRITTEN, stored.body, expected)
            body = apply_change(
                stored.body if stored and written else None, change, limit=self._settings.max_document_size
            )
            version = expected
            if expected == ANY:
                version = str(stored.version) if stored and written else ABSENT
        if len(body) > self._settings.max_document_size:
            raise TooLarge(
                f"The document would have {len(body)} bytes, and {self._settings.max_document_size} are allowed "
                "(maxDocumentSize); keep what is large in events."
            )
        return Change(WRITTEN, body, version)


class WorkingMemory(Documents):
    """Documents with their snapshots in Postgres."""

    def __init__(self, postgres: Postgres, intake: Intake, settings: Settings) -> None:
        super().__init__(intake, settings)
        self._postgres = postgres

    async def _why_none(self, agent: str) -> NoDocument | DocumentExpired | UnreadableDocument:
        last = await self.last_snapshot(agent)
        if last is None:
            return never_written()
        if (fault := fault_of(last.body)) is not None:
            return _unreadable(fault, last.version)
        return DocumentExpired(
            "The working memory was not used for its ttl and has expired; its last snapshot is kept.",
            version=str(last.version),
        )

    async def last_snapshot(self, agent: str) -> Document | None:
        """The newest snapshot, or None where there is none or the document was deleted. Raises StoreUnavailable."""
        row = await self._postgres.fetchrow("last_snapshot", agent)
        if row is None or row["kind"] == DELETED.encode():
            return None
        return Document(Position(row["shard"], Entry(row["opening"], row["sequence"])), row["body"])

    async def snapshot(self, agent: str, version: Position) -> Document:
        """A kept snapshot. Raises NoSnapshot, UnreadableDocument or StoreUnavailable."""
        row = await self._postgres.fetchrow("get_snapshot", agent, *version.entry)
        if row is None or row["shard"] != version.shard or row["kind"] == DELETED.encode():
            raise NoSnapshot("No snapshot of this version is kept; only the last few of each agent are.")
        if (fault := fault_of(row["body"])) is not None:
            raise _unreadable(fault, version)
        return Document(version, row["body"])


def never_written() -> NoDocument:
    """What is said of an agent that never had a document."""
    return NoDocument("The agent has no working memory yet; a write starts it.")
