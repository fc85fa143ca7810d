"""One server of Redis: where it is, what it says of itself, and the one connection to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from agentmemory_engine.connection import Connection, ServerInfo
from agentmemory_engine.errors import JournalFull, MemoryFault, StoreUnavailable
from agentmemory_engine.logins import Credentials, Logins
from agentmemory_engine.tls import Trust, explain_tls, make_context, trust_system

logger = logging.getLogger(__name__)

CLOSED = "this memory is closed"
_MINIMUM = {"redis": (7, 0), "valkey": (8, 0)}


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """Where Redis is: `redis://host:port`, `rediss://host:port` (TLS) or `unix:///path`; of a cluster, any node.

    `credentials` and `trust` are asked anew for every connection, so that what is rotated needs no restart.
    """

    url: str
    credentials: Callable[[], Credentials]
    trust: Trust = trust_system
    timeout: float = 2.0
    """Seconds after which an unanswered command counts the connection as lost."""


class WrongType(StoreUnavailable):
    """Someone else keeps another kind of value under a key of this memory."""


class SlotMoved(StoreUnavailable):
    """Another node of the cluster serves this slot; nothing was applied."""


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
        cluster=fields.get("cluster_enabled") == "1",
    )


def check_version(info: ServerInfo) -> None:
    """Raises StoreUnavailable for a server that is too old."""
    major, minor = (int(part) for part in info.version.split(".")[:2])
    minimum = _MINIMUM[info.flavour]
    if (major, minor) < minimum:
        raise StoreUnavailable("redis", f"{info.flavour} {info.version} is too old; Redis 7.0 or Valkey 8.0 is needed.")


def check_role(info: ServerInfo) -> None:
    """Raises StoreUnavailable for a replica."""
    if info.role != "master":
        raise StoreUnavailable("redis", "it is a replica now; the address has to lead to the master.")


def explain_reply(reply: hiredis.ReplyError) -> MemoryFault:
    """The typed error of an error reply."""
    text = str(reply)
    match text.split(" ", 1)[0]:
        case "OOM":
            return JournalFull(
                "Redis has reached its maxmemory; nothing was applied. Wait for consolidation, or give it more memory."
            )
        case "NOAUTH" | "WRONGPASS" | "NOPERM" as code:
            return StoreUnavailable(
                "redis", f"it refused the login ({code}); check the mounted credentials and the ACL user."
            )
        case "WRONGTYPE":
            return WrongType("redis", text[:200])
        case "MOVED":
            return SlotMoved("redis", "another node of the cluster serves this shard now; try again.")
        case "ASK" | "TRYAGAIN":
            return StoreUnavailable("redis", "this shard is being moved to another node of the cluster; try again.")
        case "CLUSTERDOWN":
            return StoreUnavailable("redis", f"the cluster has slots that no master serves ({text[:150]}).")
    return StoreUnavailable("redis", text[:200])


def value_of(reply: Any) -> Any:
    """The reply, or what its error means. Raises StoreUnavailable or JournalFull."""
    if isinstance(reply, hiredis.ReplyError):
        raise explain_reply(reply)
    return reply


class Node:
    """A server, and the connection to it that all share; it is made when needed. `admit` raises to refuse a new one."""

    def __init__(
        self,
        address: RedisAddress,
        admit: Callable[[Connection], Awaitable[None]],
        *,
        client_name: str,
        place: str = "",
    ) -> None:
        self._address = address
        self._admit = admit
        self._client_name = client_name
        self._place = f" to {place}" if place else ""
        self._logins = Logins(address.credentials)
        self._connection: Connection | None = None
        self._retired: list[Connection] = []
        self._attempt: asyncio.Task[Connection] | None = None
        self._closed = False

    @property
    def host(self) -> str:
        """The host that it is reached by."""
        return urlsplit(self._address.url).hostname or "127.0.0.1"

    @property
    def live(self) -> Connection | None:
        """The connection there is."""
        connection = self._connection
        return None if connection is None or connection.lost else connection

    async def connection(self) -> Connection:
        """The live connection. Raises StoreUnavailable or a Refused when there is none to be had."""
        connection = self._connection
        if connection is not None and not connection.lost:
            return connection
        if self._closed:
            raise StoreUnavailable("redis", CLOSED)
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
            raise StoreUnavailable("redis", CLOSED) from None

    async def _connect(self, logins: Sequence[Credentials]) -> Connection:
        """A connection with the first of these logins that is accepted."""
        try:
            async with asyncio.timeout(self._address.timeout):
                connection = await self._dial()
        except (OSError, TimeoutError) as error:
            said = f"cannot connect{self._place} ({type(error).__name__}: {error}); is it running?"
            raise StoreUnavailable("redis", explain_tls(error) or said) from error
        try:
            login = await self._log_in(connection, logins)
            await self._admit(connection)
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
        check_version(connection.info)
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
            connection.abort(CLOSED)
            raise StoreUnavailable("redis", CLOSED)
        self._adopt(connection)
        logger.info("redis: moved%s to the login %s", self._place, login.username)
        return True

    async def refresh(self) -> Connection:
        """Ask the server about itself again, so that what changes while it runs is noticed: its policy, its role.

        Raises StoreUnavailable.
        """
        connection = await self.connection()
        info = parse_info(value_of(await connection.send("INFO")).decode())
        if connection.info is None or info.run_id != connection.info.run_id or info.role != "master":
            connection.abort("it has another role or history now")
            raise StoreUnavailable("redis", "it has become a replica, or another master; connecting anew.")
        connection.info = info
        return connection

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
