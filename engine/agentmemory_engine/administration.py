"""What an administrator of Redis does for a memory: make and drop its logins, erase its keys.

Everything here takes a client of redis-py with an administrator's login, never the engine's own connection. Where its
server is of a cluster, every node is seen to with the same login: a cluster spreads no users, and a replica that is
promoted has to know them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, ResponseError

from agentmemory_engine.keys import Keys
from agentmemory_engine.redis import Credentials, RedisAddress
from agentmemory_engine.slots import SlotMap, parse_view

T = TypeVar("T")
_TIMEOUT = 5.0
_PAGE = 1000


def open_client(address: RedisAddress, login: Credentials | None = None) -> Any:
    """A client for this address, `async with` closes it; without a login, with the address's own of this moment.

    It tries nothing twice. The answer is a redis.asyncio.Redis, whose types know only a part of what it can do.
    """
    login = login or address.credentials()
    url = urlsplit(address.url)
    options: dict[str, Any] = {
        "username": login.username, "password": login.password, "decode_responses": True,
        "retry": Retry(NoBackoff(), 0), "socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT,
    }  # fmt: skip
    if url.scheme == "unix":
        return Redis(unix_socket_path=unquote(url.path), **options)
    if url.scheme == "rediss":
        options |= {"ssl": True, "ssl_ca_data": address.trust(), "ssl_check_hostname": True}
    return Redis(host=url.hostname or "", port=url.port or 6379, **options)


async def everywhere(client: Any, act: Callable[[Any], Awaitable[T]], *, masters: bool = False) -> list[T]:
    """What comes of it at the server; in a cluster, at every node, or at every master only.

    Raises redis.exceptions.RedisError, also where a node does not answer, unless the cluster has given it up.
    """
    view = await _view(client)
    if view is None:
        return [await act(client)]
    serving = {place for place in view.masters if place is not None}
    found = []
    for place in sorted(serving if masters else serving | view.nodes):
        async with _open_beside(client, place) as node:
            found.append(await act(node))
    return found


async def _view(client: Any) -> SlotMap | None:
    """Who serves what, as this server sees it; None where it is of no cluster."""
    if not (await client.info("cluster")).get("cluster_enabled"):
        return None
    info, slots = [await client.execute_command("CLUSTER", what) for what in ("INFO", "SLOTS")]
    asked = client.connection_pool.connection_kwargs.get("host") or "127.0.0.1"
    return parse_view(info.decode() if isinstance(info, bytes) else info, slots, asked)


def _open_beside(client: Any, place: str) -> Any:
    """A client like this one, for another node."""
    pool = client.connection_pool
    host, _, port = place.rpartition(":")
    options = {name: value for name, value in pool.connection_kwargs.items() if name != "path"}
    options |= {"host": host.strip("[]"), "port": int(port)}
    kind = Connection if pool.connection_class is UnixDomainSocketConnection else pool.connection_class
    return Redis.from_pool(ConnectionPool(connection_class=kind, **options))


@dataclass(frozen=True)
class Users:
    """The users of a server, or of the nodes of a cluster. `runs` changes when one has restarted."""

    runs: tuple[str, ...]
    everywhere: frozenset[str]
    anywhere: frozenset[str]


async def find_users(client: Any) -> Users:
    """Who may log in, and whether at every node. Raises redis.exceptions.RedisError."""
    found = await everywhere(client, _users_of)
    names = [users for _, users in found]
    return Users(tuple(sorted(run for run, _ in found)), frozenset.intersection(*names), frozenset[str]().union(*names))


async def _users_of(client: Any) -> tuple[str, frozenset[str]]:
    run = (await client.info("server"))["run_id"]
    return str(run), frozenset(str(name) for name in await client.acl_users())


async def read_identity(client: Any, keys: Keys) -> str | None:
    """The id in the identity record; None where there is none yet. Raises redis.exceptions.RedisError."""
    return await _at_holder(client, lambda node: node.get(keys.identity))


async def write_identity(client: Any, keys: Keys, identity: str) -> str:
    """Make the identity record where there is none; answer what it says then. Raises redis.exceptions.RedisError."""
    found = await _at_holder(client, lambda node: node.set(keys.identity, identity, nx=True, get=True))
    return identity if found is None else found


async def _at_holder(client: Any, ask: Callable[[Any], Awaitable[Any]]) -> str | None:
    """What the server says that holds the key which is asked for."""

    async def ask_one(node: Any) -> Any:
        try:
            return await ask(node)
        except MovedError:
            return None  # another node's to say

    found = await everywhere(client, ask_one, masters=True)
    return next((str(one) for one in found if one is not None), None)


async def set_login(client: Any, keys: Keys, login: Credentials) -> None:
    """Make a login that has this password and no right but to its memory's keys, or make it so again.

    The server is told the password's digest only. Raises redis.exceptions.RedisError.
    """
    digest = sha256(login.password.encode()).hexdigest()
    await _change_users(client, "SETUSER", login.username, "reset", "on", f"#{digest}", *keys.acl()[1:])


async def drop_login(client: Any, username: str) -> None:
    """End a login and its connections; no effect on one that is not there. Raises redis.exceptions.RedisError."""
    await _change_users(client, "DELUSER", username)


async def _change_users(client: Any, *command: str) -> None:
    """Change the users, and keep them over a restart, where they stand in a file."""

    async def change(node: Any) -> None:
        await node.execute_command("ACL", *command)
        if await _has_acl_file(node):
            await node.execute_command("ACL", "SAVE")

    await everywhere(client, change)


async def _has_acl_file(client: Any) -> bool:
    """Whether users are kept in a file. A server that does not tell keeps them by other means."""
    try:
        return bool((await client.config_get("aclfile")).get("aclfile"))
    except ResponseError:
        return False


async def erase(client: Any, keys: Keys) -> int:
    """Delete every key of the memory, in small steps; answer how many. Raises redis.exceptions.RedisError."""
    return sum(await everywhere(client, lambda node: _erase(node, keys), masters=True))


async def _erase(client: Any, keys: Keys) -> int:
    erased = 0
    cursor = 0
    while True:
        answer, found = await client.scan(cursor, match=keys.prefix + "*", count=_PAGE)
        # One by one, since a cluster takes no command on keys of several slots.
        async with client.pipeline(transaction=False) as pipeline:
            for key in found:
                pipeline.unlink(key)
            erased += int(sum(await pipeline.execute()))
        cursor = int(answer)
        if not cursor:
            return erased
