"""Redis as the engine uses it: one server, or a Redis Cluster, as the server itself says.

All commands of a process share one connection a server and are answered in order, which at fifty callers has several
times the throughput of a pool. Nothing that blocks may be sent on it: scripts and plain reads only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis

from agentmemory_engine.cluster import Cluster
from agentmemory_engine.connection import Arg, Connection, ServerInfo
from agentmemory_engine.errors import ForeignStore, JournalFull, StoreUnavailable, WrongEvictionPolicy
from agentmemory_engine.logins import Credentials, Logins
from agentmemory_engine.node import Node, RedisAddress, SlotMoved, check_role, explain_reply
from agentmemory_engine.scripts import Script

__all__ = ["Credentials", "Logins", "Redis", "RedisAddress", "check_identity", "check_policy", "check_room"]

_MAP_ERRORS = ("MOVED ", "CLUSTERDOWN ", "READONLY ")


class Redis:
    """Commands and scripts on connections that are made when needed. A key is sent to the server that holds it."""

    def __init__(self, address: RedisAddress, *, client_name: str = "agentmemory") -> None:
        self._address = address
        self._client_name = client_name
        self._first = Node(address, self._admit, client_name=client_name)
        self._cluster: Cluster | None = None
        self.verify: Callable[[Connection], Any] | None = None
        """Asked (and awaited) about each new connection, and at each refresh; it raises to refuse the server. Of a
        cluster, it is asked about the node that holds `verify_key`."""
        self.verify_key = ""

    async def _admit(self, connection: Connection) -> None:
        assert connection.info is not None
        if connection.info.cluster:
            return
        check_role(connection.info)
        if self.verify is not None:
            await self.verify(connection)

    @property
    def infos(self) -> list[ServerInfo]:
        """What is known of the server, or of the masters of the cluster; empty without a connection."""
        if self._cluster is not None:
            return self._cluster.infos
        connection = self._first.live
        return [] if connection is None or connection.info is None else [connection.info]

    async def open(self) -> None:
        """Nothing to do: it connects when it is first used."""

    async def connection(self, key: str | None = None) -> Connection:
        """The live connection to the server that holds this key; without one, to the one that says whose the memory is.

        Raises StoreUnavailable or a Refused when there is none to be had.
        """
        cluster = self._cluster
        if cluster is None:
            connection = await self._first.connection()
            if connection.info is None or not connection.info.cluster:
                return connection
            cluster = self._join()
        elif cluster.dissolved:
            self._cluster = None
            await cluster.close()
            return await self.connection(key)
        return await cluster.connection(self.verify_key if key is None else key)

    def _join(self) -> Cluster:
        """The cluster that the first server belongs to; one for all who found that out at once."""
        if self._cluster is None:
            self._cluster = Cluster(
                self._address,
                self._first,
                client_name=self._client_name,
                verify=self.verify,
                verify_key=self.verify_key,
            )
        return self._cluster

    async def renew(self) -> bool:
        """Move to connections with the login of this moment where that is another one; answer whether one did.

        Raises StoreUnavailable or a Refused; then the connections there are go on.
        """
        return await (self._first if self._cluster is None else self._cluster).renew()

    async def execute(self, command: str, *args: Arg) -> Any:
        """Run one command, whose first argument is its key. Raises StoreUnavailable or JournalFull."""
        key = str(args[0]) if args else None

        async def send() -> Any:
            return self.value(await (await self.connection(key)).send(command, *args))

        return await self._following(send)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run a script. Raises StoreUnavailable or JournalFull; with either, a turn may or may not have been applied
        when the connection was lost in between."""

        async def send() -> Any:
            return await self.run_on(await self.connection(keys[0]), script, keys, args)

        return await self._following(send)

    async def _following(self, send: Callable[[], Awaitable[Any]]) -> Any:
        """Send, and once more where the key is on another node by now."""
        try:
            return await send()
        except SlotMoved:
            return await send()

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
            if self._cluster is not None and str(reply).startswith(_MAP_ERRORS):
                self._cluster.stale = True
            raise explain_reply(reply)
        return reply

    async def refresh(self, *, partly: bool = False) -> list[ServerInfo]:
        """Ask the servers about themselves again, so that what changes while they run is noticed: policy, role.

        Raises StoreUnavailable where one does not answer; with `partly`, only where none of a cluster does.
        """
        if self._cluster is None:
            await self.connection()
        if self._cluster is None:
            return [await self._refresh_first()]
        found = await self._cluster.refresh()
        silent = [answer for answer in found if isinstance(answer, StoreUnavailable)]
        if silent and not (partly and len(silent) < len(found)):
            raise silent[0]
        return [answer for answer in found if isinstance(answer, ServerInfo)]

    async def _refresh_first(self) -> ServerInfo:
        connection = await self._first.refresh()
        assert connection.info is not None
        try:
            if self.verify is not None:
                await self.verify(connection)
        except ForeignStore:
            connection.abort("it belongs to another memory")
            raise
        return connection.info

    def drop(self) -> None:
        """Make the next command connect anew, with the credentials of that moment."""
        self._first.drop()
        if self._cluster is not None:
            self._cluster.drop()

    async def close(self) -> None:
        """Let go of the connections, and of those being made; whoever waits for one gets StoreUnavailable."""
        await self._first.close()
        if self._cluster is not None:
            await self._cluster.close()


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
