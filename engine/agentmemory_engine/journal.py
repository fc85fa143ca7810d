"""The journal: acknowledged events in Redis Streams, one stream a shard, until they are durable in Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Any, NamedTuple, TypeVar

import msgspec

from agentmemory_engine.answers import Receipt
from agentmemory_engine.connection import Connection
from agentmemory_engine.errors import KeyReused, ShardClosed, StoreUnavailable, UnreadableDocument, VersionConflict
from agentmemory_engine.intake import Foreign
from agentmemory_engine.keys import digest_key, event_id
from agentmemory_engine.node import WrongType
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.redis import Redis, check_policy
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings

T = TypeVar("T")
ABSENT = "absent"
ANY = ""
ERASED = "e"
"""The change of an entry that is an erasure."""
NEVER = "0-0"
"""A version that no document has: for a turn whose key is known, so that nothing is written again."""
ERASURE = digest_key("an erasure")[:8]
"""The fingerprint of every erasure: its body is always the same."""
_TAIL_ENTRIES = 500
_BATCH_BYTES = 4 << 20
"""Of events, after which a batch or page takes no more: turns can be large."""
_DOCUMENT_BYTES = 16 << 20
_RETRY_FOR = 1.5
"""Seconds; an opening takes some tens of milliseconds."""


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call that may be repeated while a shard is being opened or Redis is coming back, for a short time.

    Raises ShardClosed or StoreUnavailable when that was not long enough.
    """
    deadline = time.monotonic() + _RETRY_FOR
    pause = 0.01
    while True:
        try:
            return await call()
        except (ShardClosed, StoreUnavailable):
            if time.monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.2)


class JournalEntry(NamedTuple):
    """One turn as it stands in the stream. `events` is a JSON array; `accepted_ms` counts from 1970.

    `dropped`: how many documents and recent messages an erasure took out of Redis.
    """

    entry: Entry
    agent: str
    accepted_ms: int
    key: bytes
    fingerprint: bytes
    session: str | None
    events: bytes
    change: str
    dropped: tuple[int, int] = (0, 0)


def parse_entry(raw: Any) -> JournalEntry:
    """One element of XRANGE's answer."""
    fields = raw[1]
    documents, _, messages = fields[15].partition(b" ") if len(fields) > 14 else (b"0", b"", b"0")
    return JournalEntry(
        Entry.parse(raw[0]),
        fields[1].decode(),
        int(fields[3]),
        bytes.fromhex(fields[5].decode()),
        bytes.fromhex(fields[7].decode()),
        fields[9].decode() or None,
        fields[11],
        fields[13].decode(),
        (int(documents), int(messages)),
    )


@dataclass(frozen=True)
class Probe:
    """A shard as Redis has it. `mark` is (run, opening) while it is open.

    `lag` is the age of the first pending entry in seconds, by the clock of Redis; 0 when nothing is pending.
    """

    mark: tuple[bytes, int] | None
    trimmed: Entry | None
    pending: int
    lag: float
    run_id: bytes

    @property
    def open(self) -> bool:
        return self.mark is not None and self.mark[0] == self.run_id


@dataclass(frozen=True)
class Batch:
    """The first entries of a stream, read under one opening; `attempts` owners stopped at its head before.

    `more` says that others follow.
    """

    opening: int
    entries: list[JournalEntry]
    attempts: int
    more: bool

    def of_agents(self, agents: set[str]) -> Batch:
        """As much of its beginning as concerns only these agents."""
        count = next((n for n, entry in enumerate(self.entries) if entry.agent not in agents), len(self.entries))
        return replace(self, entries=self.entries[:count], more=self.more or count < len(self.entries))


class TailPage(NamedTuple):
    """Part of a stream; `first` is its first entry, None when it is empty."""

    opening: int
    first: Entry | None
    more: bool
    entries: list[JournalEntry]


@dataclass(frozen=True)
class Change:
    """A change of the document for the turn's script. `expected` is a version, ABSENT or ANY."""

    kind: str = ""
    body: bytes = b""
    expected: str = ANY


@dataclass(frozen=True)
class Submission:
    """A turn ready for the script: everything but where it will stand."""

    agent: str
    key: str
    fingerprint: bytes
    session: str | None
    events: bytes
    count: int
    window: list[tuple[int, bytes]]
    change: Change


class Journal:
    """Appends, reads and trims; every call names the run of Redis that it was learnt from."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._keys = settings.keys

    async def _at(self, shard: int) -> Connection:
        """The connection to the server that holds the shard. Raises StoreUnavailable."""
        return await self._redis.connection(self._keys.state(shard))

    async def append(self, turn: Submission) -> Receipt:
        """Put a turn into the journal, atomically with its change of the document and the recent window.

        The same key with the same body answers the first receipt. Raises KeyReused, VersionConflict, JournalFull,
        WrongEvictionPolicy, ShardClosed, UnreadableDocument, StoreUnavailable; after the last one the turn may be in
        the journal all the same, and sending it again with its key settles that.
        """
        return await patiently(lambda: self._append(turn))

    async def _append(self, turn: Submission) -> Receipt:
        shard = self._settings.shard_of(turn.agent)
        digest = digest_key(turn.key)
        connection = await self._at(shard)
        info = connection.info
        assert info is not None
        check_policy(info)
        reply = await self._redis.run_on(
            connection,
            load_script("turn"),
            self._turn_keys(shard, turn.agent, digest),
            self._turn_args(turn, digest, info.run_id),
        )
        return self._receipt(turn.agent, shard, digest, reply, count=turn.count)

    async def erase(self, agent: str, key: str) -> Receipt:
        """Put an erasure into the journal, and drop the agent's document and recent window, atomically.

        Raises KeyReused, JournalFull, WrongEvictionPolicy, ShardClosed, StoreUnavailable.
        """
        return await patiently(lambda: self._erase(agent, key))

    async def _erase(self, agent: str, key: str) -> Receipt:
        shard = self._settings.shard_of(agent)
        digest = digest_key(key)
        connection = await self._at(shard)
        info = connection.info
        assert info is not None
        check_policy(info)
        window = int(self._settings.idempotency_window * 1000)
        args: list[bytes | str | int] = [info.run_id, agent, digest.hex(), ERASURE.hex(), window]
        keys = self._turn_keys(shard, agent, digest)
        reply = await self._redis.run_on(connection, load_script("erase"), keys, args)
        return self._receipt(agent, shard, digest, reply, count=0)

    def _turn_keys(self, shard: int, agent: str, digest: bytes) -> list[str]:
        keys = self._keys
        return [
            keys.state(shard),
            keys.journal(shard),
            keys.leases(shard),
            keys.document(shard, agent),
            keys.window(shard, agent),
            keys.idempotency(shard, agent, digest),
        ]

    def _turn_args(self, turn: Submission, digest: bytes, run_id: bytes) -> list[bytes | str | int]:
        settings, change = self._settings, turn.change
        args: list[bytes | str | int] = [
            run_id, turn.agent, digest.hex(), turn.fingerprint.hex(), change.expected, change.kind, change.body,
            turn.session or "", turn.events, int(settings.idempotency_window * 1000), settings.recent_messages,
            turn.count,
        ]  # fmt: skip
        about = f"{digest.hex()} ".encode() + msgspec.json.encode(turn.session) + b"\n"
        for index, text in turn.window[-self._settings.recent_messages :]:
            args += (index, about + text)
        return args

    def _receipt(self, agent: str, shard: int, digest: bytes, reply: Any, *, count: int) -> Receipt:
        match reply[0]:
            case b"closed":
                raise ShardClosed(
                    "Redis has restarted or lost data, and the shard is being opened for its new run; try again."
                )
            case b"reused":
                raise key_reused()
            case b"unreadable":
                raise UnreadableDocument("What stands in the place of the document is not ours.", version=None)
            case b"stale":
                raise version_conflict(shard, Entry.parse(reply[1]) if reply[1] else None)
        return Receipt(
            position=Position(shard, Entry.parse(reply[1])),
            version=Position(shard, Entry.parse(reply[2])) if reply[2] else None,
            events=[event_id(agent, digest, index) for index in range(count)],
            repeated=reply[0] == b"repeated",
        )

    async def is_known(self, agent: str, key: str) -> bool:
        """Whether a turn with this key was accepted within the window. Raises StoreUnavailable."""
        shard = self._settings.shard_of(agent)
        return bool(await self._redis.execute("EXISTS", self._keys.idempotency(shard, agent, digest_key(key))))

    async def refresh(self) -> None:
        """Learn again what of the servers' settings can change while they run, of those that answer.

        Raises StoreUnavailable when none does.
        """
        await self._redis.refresh(partly=True)

    async def probe(self, shard: int) -> Probe:
        """What is pending, and under which opening. Raises StoreUnavailable."""
        connection = await self._at(shard)
        run, opening, trimmed, pending, age = await self._redis.run_on(
            connection, load_script("probe"), [self._keys.state(shard), self._keys.journal(shard)], []
        )
        return Probe(
            mark=(run, int(opening)) if run else None,
            trimmed=Entry.parse(trimmed) if trimmed else None,
            pending=pending,
            lag=max(0, age) / 1000,
            run_id=run_id_of(connection),
        )

    async def document(self, agent: str) -> bytes | None:
        """As Intake has it."""
        shard = self._settings.shard_of(agent)
        key = self._keys.document(shard, agent)

        async def ask() -> bytes | None:
            value: bytes | None
            try:
                value = await self._read_key(shard, "GET", key)
            except WrongType:
                value = await self._read_key(shard, "DUMP", key)
                if value is not None:
                    raise Foreign(value) from None
            return value

        return await patiently(ask)

    async def window(self, agent: str, limit: int) -> list[bytes]:
        """As Intake has it."""
        shard = self._settings.shard_of(agent)
        found: list[bytes] = await self._read_key(shard, "LRANGE", self._keys.window(shard, agent), -limit, -1)
        return found

    async def _read_key(self, shard: int, command: str, *args: str | int) -> Any:
        """A plain read of one key, where the shard is open in this run. Raises ShardClosed, StoreUnavailable.

        What was open stays open while the run lasts, so that it is not asked each time; but for a FLUSHALL, after which
        nothing is found, and then it is asked again. On a cluster a slot may go and come back in between.
        """
        connection = await self._at(shard)
        if shard in connection.opened:
            value = self._redis.value(await connection.send(command, *args))
            if value:
                return value
            connection.opened.discard(shard)
        return await self._read_checked(connection, shard, command, *args)

    async def _read_checked(self, connection: Connection, shard: int, command: str, *args: str | int) -> Any:
        """The read between two looks at the mark, all sent at once."""
        mark = ("HGET", self._keys.state(shard), "run")
        replies = await asyncio.gather(connection.send(*mark), connection.send(command, *args), connection.send(*mark))
        before, value, after = (self._redis.value(reply) for reply in replies)
        if not before == after == run_id_of(connection):
            raise ShardClosed("Redis has restarted or lost data, and the shard is being opened anew; try again.")
        if connection.info is not None and not connection.info.cluster:
            connection.opened.add(shard)
        return value

    async def set_aside(self, agent: str, value: bytes) -> None:
        """Take away what stands in the document's place, where that is still this value (of no string: its dump).

        Raises ShardClosed, StoreUnavailable.
        """
        shard = self._settings.shard_of(agent)
        connection = await self._at(shard)
        keys = [self._keys.state(shard), self._keys.document(shard, agent)]
        args: list[bytes | str | int] = [run_id_of(connection), sha1(value, usedforsecurity=False).hexdigest()]
        if await self._redis.run_on(connection, load_script("set_aside"), keys, args) < 0:
            raise ShardClosed("Redis has restarted or lost data, and the shard is being opened anew; try again.")

    async def read(self, shard: int, *, opening: int, epoch: int, count: int) -> Batch | None:
        """The first entries, `count` at most, or None under another opening. Raises StoreUnavailable."""
        connection = await self._at(shard)
        reply = await self._redis.run_on(
            connection,
            load_script("read"),
            [self._keys.state(shard), self._keys.journal(shard)],
            [run_id_of(connection), opening, count, _BATCH_BYTES, epoch],
        )
        if reply[0] == b"closed":
            return None
        return Batch(opening, [parse_entry(raw) for raw in reply[3]], reply[1], bool(reply[2]))

    async def documents(
        self, shard: int, agents: Sequence[str], *, opening: int
    ) -> tuple[Entry | None, dict[str, bytes], int] | None:
        """How far was trimmed, the stored documents of the first of these agents, and of how many; None under another
        opening. Documents can be large: no more are read than fit into a batch, and of one agent at least.
        """
        connection = await self._at(shard)
        keys = [self._keys.state(shard), *(self._keys.document(shard, agent) for agent in agents)]
        args: list[bytes | int] = [run_id_of(connection), opening, _DOCUMENT_BYTES]
        reply = await self._redis.run_on(connection, load_script("documents"), keys, args)
        if reply[0] == b"closed":
            return None
        found = dict(zip(agents, reply[2:], strict=False))
        trimmed = Entry.parse(reply[1]) if reply[1] else None
        return trimmed, {agent: body for agent, body in found.items() if body is not None}, len(found)

    async def settle(
        self, shard: int, *, opening: int, durable: Entry, leases: Sequence[tuple[str, Entry | None, int]]
    ) -> bool:
        """After a commit: start leases (agent, snapshotted version, milliseconds), then trim up to `durable`.

        Answers False, with nothing done, under another opening. Raises StoreUnavailable.
        """
        connection = await self._at(shard)
        keys = [self._keys.state(shard), self._keys.journal(shard), self._keys.leases(shard)]
        args: list[bytes | str | int] = [run_id_of(connection), opening, str(durable), str(durable.next())]
        for agent, version, milliseconds in leases:
            keys += (self._keys.document(shard, agent), self._keys.window(shard, agent))
            args += (agent, str(version) if version else "", milliseconds)
        return bool(await self._redis.run_on(connection, load_script("settle"), keys, args) >= 0)

    async def tail(self, shard: int, *, start: Entry) -> TailPage:
        """What the stream holds from `start` on, a page of it.

        Raises ShardClosed or StoreUnavailable.
        """
        connection = await self._at(shard)
        reply = await self._redis.run_on(
            connection,
            load_script("tail"),
            [self._keys.state(shard), self._keys.journal(shard)],
            [run_id_of(connection), str(start), _TAIL_ENTRIES, _BATCH_BYTES],
        )
        if reply[0] == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        first = Entry.parse(reply[2]) if reply[2] else None
        return TailPage(int(reply[1]), first, bool(reply[3]), [parse_entry(raw) for raw in reply[4]])


def run_id_of(connection: Connection) -> bytes:
    """The run of Redis that this connection was made to."""
    assert connection.info is not None
    return connection.info.run_id


def key_reused() -> KeyReused:
    """What is said about a key that comes with another body."""
    return KeyReused("This Idempotency-Key was used for another body; use a new key for a new turn.")


def version_conflict(shard: int, current: Entry | None) -> VersionConflict:
    """What is said when the document has another version than was expected."""
    if current is None:
        return VersionConflict("There is no document now; leave the version out to write a new one.", current=None)
    version = str(Position(shard, current))
    return VersionConflict(
        f"The document is at version {version}; read it again and repeat the change on it.", current=version
    )
