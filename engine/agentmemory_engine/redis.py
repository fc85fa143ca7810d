"""One pipelined connection to Redis, reconnected when lost.

All commands of a process share one connection and are answered in order, which at fifty callers has several times the
throughput of a pool. Nothing that blocks may be sent on it: scripts and plain reads only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from agentmemory_engine.connection import Arg, Connection, ServerInfo
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

_CLOSED = "this memory is closed"
_MINIMUM = {"redis": (7, 0), "valkey": (8, 0)}


@dataclass(frozen=True)
class Credentials:
    """A login. Its password never shows in a repr, so never in a log."""

    username: str
    password: str = field(repr=False)


class Logins:
    """The login of the moment, and the one that worked last: that one goes on where a new one is not accepted yet."""

    def __init__(self, ask: Callable[[], Credentials]) -> None:
        self.ask = ask
        self.worked: Credentials | None = None

    def candidates(self) -> list[Credentials]:
        """What to try, in this order; never empty. Raises StoreUnavailable."""
        fresh = self.ask()
        return [fresh] if self.worked in (None, fresh) else [fresh, self.worked]


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


class Redis:
    """Redis as the engine uses it: commands and scripts on one connection that is made when needed."""

    def __init__(self, address: RedisAddress, *, client_name: str = "agentmemory") -> None:
        self._address = address
        self._client_name = client_name
        self._logins = Logins(address.credentials)
        self._connection: Connection | None = None
        self._retired: list[Connection] = []
        self._attempt: asyncio.Task[Connection] | None = None
        self._closed = False
        self.verify: Callable[[Connection], Any] | None = None
        """Asked (and awaited) about each new connection, and at each refresh; it raises to refuse the server."""

    @property
    def info(self) -> ServerInfo | None:
        """What is known of the server; None without a connection."""
        connection = self._connection
        return None if connection is None or connection.lost else connection.info

    async def open(self) -> None:
        """Nothing to do: it connects when it is first used."""

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
            self._adopt(attempt.result())

    def _adopt(self, connection: Connection) -> None:
        """Send what comes on this connection; what is under way on the one before is still answered there."""
        old, self._connection = self._connection, connection
        self._retired = [one for one in self._retired if not one.lost]
        if old is not None and not old.lost:
            old.retire()
            self._retired.append(old)

    async def _try_to_connect(self) -> Connection:
        try:
            return await self._connect(self._logins.candidates())
        except asyncio.CancelledError:
            raise StoreUnavailable("redis", _CLOSED) from None

    async def _connect(self, logins: Sequence[Credentials]) -> Connection:
        """A connection with the first of these logins that is accepted."""
        try:
            async with asyncio.timeout(self._address.timeout):
                connection = await self._dial()
        except (OSError, TimeoutError) as error:
            reason = explain_tls(error) or f"cannot connect ({type(error).__name__}: {error}); is it running?"
            raise StoreUnavailable("redis", reason) from error
        try:
            login = await self._log_in(connection, logins)
            if self.verify is not None:
                await self.verify(connection)
        except BaseException:
            connection.abort("refused")
            raise
        self._logins.worked = login
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

    async def _log_in(self, connection: Connection, logins: Sequence[Credentials]) -> Credentials:
        """Log in with the first of these that is accepted; answer which. Raises for what was said to the first."""
        refusals: list[hiredis.ReplyError] = []
        for login in logins:
            refusal = await self._greet(connection, login)
            if refusal is None:
                return login
            refusals.append(refusal)
        raise explain_reply(refusals[0])

    async def _greet(self, connection: Connection, login: Credentials) -> hiredis.ReplyError | None:
        """Log in and learn what the server is; answer what it has against this login."""
        hello = ["HELLO", "3", "AUTH", login.username, login.password, "SETNAME", self._client_name]
        greeting, info = await asyncio.gather(connection.send(*hello), connection.send("INFO"))
        for reply in (greeting, info):
            if isinstance(reply, hiredis.ReplyError):
                return reply
        connection.info = parse_info(info.decode())
        check_server(connection.info)
        return None

    async def renew(self) -> bool:
        """Move to a connection with the login of this moment where that is another one; answer whether it did.

        Raises StoreUnavailable or a Refused; then the connection there is goes on.
        """
        if self._attempt is not None:
            await asyncio.wait({self._attempt})
        login = self._logins.ask()
        if self._logins.worked in (None, login):
            return False
        connection = await self._connect([login])
        if self._closed:
            connection.abort(_CLOSED)
            raise StoreUnavailable("redis", _CLOSED)
        self._adopt(connection)
        logger.info("redis: moved to the login %s", login.username)
        return True

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
        for connection in (self._connection, *self._retired):
            if connection is not None:
                connection.abort("reconnecting")

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
