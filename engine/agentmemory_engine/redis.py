"""One pipelined connection to Redis, reconnected when lost.

All commands of a process share one connection and are answered in order, which at fifty callers has several times the
throughput of a pool. Nothing that blocks may be sent on it: scripts and plain reads only.
A caller that is cancelled leaves its place in the queue behind, so that answers never reach the wrong caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from agentmemory_engine.errors import (
    ForeignStore,
    JournalFull,
    MemoryFault,
    StoreUnavailable,
    WrongEvictionPolicy,
)
from agentmemory_engine.scripts import Script
from agentmemory_engine.tls import Trust, explain_tls, make_context, trust_system

logger = logging.getLogger(__name__)

Arg = bytes | str | int | float
_CLOSED = "this memory is closed"
_MINIMUM = {"redis": (7, 0), "valkey": (8, 0)}


@dataclass(frozen=True)
class Credentials:
    """A login. Its password never shows in a repr, so never in a log."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """Where Redis is: `redis://host:port`, `rediss://host:port` (TLS) or `unix:///path`.

    `credentials` and `trust` are asked anew for every connection, so that what is rotated needs no restart.
    """

    url: str
    credentials: Callable[[], Credentials]
    trust: Trust = trust_system
    timeout: float = 2.0
    """Seconds after which an unanswered command counts the connection as lost."""


@dataclass(frozen=True)
class ServerInfo:
    """What a connection learnt of its server when it was made."""

    run_id: bytes
    """Of the process and of the history it writes: a replica that is promoted begins another history."""
    role: str
    flavour: str
    version: str
    eviction_policy: str
    append_only: bool
    used_memory: int
    max_memory: int


def parse_info(text: str) -> ServerInfo:
    """Read the answer of INFO."""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    flavour = "valkey" if "valkey_version" in fields else "redis"
    return ServerInfo(
        run_id=f"{fields['run_id']}.{fields.get('master_replid', '')}".encode(),
        role=fields.get("role", ""),
        flavour=flavour,
        version=fields[f"{flavour}_version"],
        eviction_policy=fields.get("maxmemory_policy", ""),
        append_only=fields.get("aof_enabled") == "1",
        used_memory=int(fields.get("used_memory", 0)),
        max_memory=int(fields.get("maxmemory", 0)),
    )


def check_server(info: ServerInfo) -> None:
    """Raises StoreUnavailable for a replica, or a server that is too old."""
    if info.role != "master":
        raise StoreUnavailable("redis", "it is a replica now; the address has to lead to the master.")
    major, minor = (int(part) for part in info.version.split(".")[:2])
    minimum = _MINIMUM[info.flavour]
    if (major, minor) < minimum:
        raise StoreUnavailable("redis", f"{info.flavour} {info.version} is too old; Redis 7.0 or Valkey 8.0 is needed.")


def explain_reply(reply: hiredis.ReplyError) -> MemoryFault:
    """The typed error of an error reply."""
    text = str(reply)
    code = text.split(" ", 1)[0]
    if code == "OOM":
        return JournalFull(
            "Redis has reached its maxmemory; nothing was applied. Wait for consolidation, or give it more memory."
        )
    if code in ("NOAUTH", "WRONGPASS", "NOPERM"):
        return StoreUnavailable(
            "redis", f"it refused the login ({code}); check the mounted credentials and the ACL user."
        )
    return StoreUnavailable("redis", text[:200])


class Connection(asyncio.Protocol):
    """One connection. Lost for good when `lost` is set."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._watchdog: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.lost = False
        self.info: ServerInfo | None = None
        self.opened: set[int] = set()
        """The shards that were seen open in this run."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError as error:
                self.abort(f"it answered outside the protocol ({error})")
                return
            if reply is Ellipsis or not self._waiting:
                return
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection was lost" + (f" ({exc})" if exc else "") + "; is it running?")

    def abort(self, reason: str) -> None:
        """Close at once; whoever waits gets StoreUnavailable."""
        self._fail(reason)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        self.lost = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        while self._waiting:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_exception(StoreUnavailable("redis", reason))

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send a command; the future resolves to its reply (an error reply is a value, hiredis.ReplyError)."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost or self._transport is None:
            future.set_exception(StoreUnavailable("redis", "the connection was lost"))
            return future
        self._waiting.append((self._loop.time(), future))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout, self._watch)
        self._transport.write(hiredis.pack_command(args))  # type: ignore[arg-type]
        return future

    def _watch(self) -> None:
        """Give up a connection whose oldest command is overdue: a half-open peer never answers by itself."""
        self._watchdog = None
        if self.lost or not self._waiting:
            return
        due = self._waiting[0][0] + self._timeout
        if due <= self._loop.time():
            self.abort(f"no answer within {self._timeout:g} s")
        else:
            self._watchdog = self._loop.call_at(due, self._watch)


class Redis:
    """Redis as the engine uses it: commands and scripts on one connection that is made when needed."""

    def __init__(self, address: RedisAddress, *, client_name: str = "agentmemory") -> None:
        self._address = address
        self._client_name = client_name
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[Connection] | None = None
        self._closed = False
        self.verify: Callable[[Connection], Any] | None = None
        """Asked (and awaited) about each new connection, and at each refresh; it raises to refuse the server."""

    @property
    def info(self) -> ServerInfo | None:
        """What is known of the server; None without a connection."""
        connection = self._connection
        return None if connection is None or connection.lost else connection.info

    async def connection(self) -> Connection:
        """The live connection. Raises StoreUnavailable or a Refused when there is none to be had."""
        connection = self._connection
        if connection is not None and not connection.lost:
            return connection
        if self._closed:
            raise StoreUnavailable("redis", _CLOSED)
        if self._attempt is None:
            # One for all who wait, or each would spend the timeout of a server that hangs after the other.
            self._attempt = asyncio.create_task(self._try_to_connect())
            self._attempt.add_done_callback(self._attempted)
        return await asyncio.shield(self._attempt)

    def _attempted(self, attempt: asyncio.Task[Connection]) -> None:
        self._attempt = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._connection = attempt.result()

    async def _try_to_connect(self) -> Connection:
        try:
            return await self._connect()
        except asyncio.CancelledError:
            raise StoreUnavailable("redis", _CLOSED) from None

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._address.timeout):
                connection = await self._dial()
        except (OSError, TimeoutError) as error:
            reason = explain_tls(error) or f"cannot connect ({type(error).__name__}: {error}); is it running?"
            raise StoreUnavailable("redis", reason) from error
        try:
            await self._greet(connection)
            if self.verify is not None:
                await self.verify(connection)
        except BaseException:
            connection.abort("refused")
            raise
        return connection

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        url = urlsplit(self._address.url)
        timeout = self._address.timeout
        if url.scheme == "unix":
            return (await loop.create_unix_connection(lambda: Connection(timeout), unquote(url.path)))[1]
        context = make_context(self._address.trust()) if url.scheme == "rediss" else None
        host, port = url.hostname or "127.0.0.1", url.port or 6379
        return (await loop.create_connection(lambda: Connection(timeout), host, port, ssl=context))[1]

    async def _greet(self, connection: Connection) -> None:
        login = self._address.credentials()
        hello = ["HELLO", "3", "AUTH", login.username, login.password, "SETNAME", self._client_name]
        greeting, info = await asyncio.gather(connection.send(*hello), connection.send("INFO"))
        for reply in (greeting, info):
            if isinstance(reply, hiredis.ReplyError):
                raise explain_reply(reply)
        connection.info = parse_info(info.decode())
        check_server(connection.info)

    async def execute(self, *args: Arg) -> Any:
        """Run one command. Raises StoreUnavailable or JournalFull."""
        return self.value(await (await self.connection()).send(*args))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run a script. Raises StoreUnavailable or JournalFull; with either, a turn may or may not have been applied
        when the connection was lost in between."""
        return await self.run_on(await self.connection(), script, keys, args)

    async def run_on(self, connection: Connection, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run a script on this very connection, so that the run id it compares with is the connection's own."""
        reply = await connection.send("EVALSHA", script.digest, len(keys), *keys, *args)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await connection.send("EVAL", script.source, len(keys), *keys, *args)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY"):
            connection.abort("it has become a replica")
        return self.value(reply)

    def value(self, reply: Any) -> Any:
        """The reply, or what its error means. Raises StoreUnavailable or JournalFull."""
        if isinstance(reply, hiredis.ReplyError):
            raise explain_reply(reply)
        return reply

    async def refresh(self) -> ServerInfo:
        """Ask the server about itself again, so that what changes while it runs is noticed: its policy, its role.

        Raises StoreUnavailable.
        """
        connection = await self.connection()
        info = parse_info(self.value(await connection.send("INFO")).decode())
        if connection.info is None or info.run_id != connection.info.run_id or info.role != "master":
            connection.abort("it has another role or history now")
            raise StoreUnavailable("redis", "it has become a replica, or another master; connecting anew.")
        connection.info = info
        try:
            if self.verify is not None:
                await self.verify(connection)
        except ForeignStore:
            connection.abort("it belongs to another memory")
            raise
        return info

    def drop(self) -> None:
        """Make the next command connect anew, with the credentials of that moment."""
        if self._connection is not None:
            self._connection.abort("reconnecting")

    async def close(self) -> None:
        """Let go of the connection, and of one that is being made; whoever waits for it gets StoreUnavailable."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})
        self.drop()


def check_room(info: ServerInfo) -> None:
    """Raises JournalFull where Redis takes no more."""
    if info.max_memory and info.used_memory >= info.max_memory:
        raise JournalFull("Redis has reached its maxmemory; wait for consolidation, or give it more memory.")


def check_policy(info: ServerInfo) -> None:
    """Raises WrongEvictionPolicy where Redis may evict unflushed memory."""
    if info.eviction_policy != "noeviction":
        raise WrongEvictionPolicy(
            f"Redis has maxmemory-policy {info.eviction_policy!r} and may evict unflushed memory; nothing is accepted. "
            "Set it with: CONFIG SET maxmemory-policy noeviction"
        )


async def check_identity(connection: Connection, key: str, identity: str) -> None:
    """Compare the identity record in Redis with the one in Postgres; leave one where there is none.

    Raises ForeignStore.
    """
    # Only read where there is one: a full Redis refuses every SET, and must still be drained.
    found = await connection.send("GET", key)
    if found is None:
        found = await connection.send("SET", key, identity, "NX", "GET")
    if isinstance(found, hiredis.ReplyError):
        raise explain_reply(found)
    if found is not None and found.decode() != identity:
        raise ForeignStore(
            "Redis holds the memory of another AgentMemory under this name; give it its own Redis or name."
        )
