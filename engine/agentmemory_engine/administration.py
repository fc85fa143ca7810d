"""What an administrator of Redis does for a memory: make and drop its logins, erase its keys.

Everything here takes a client of redis-py with an administrator's login, never the engine's own connection.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from agentmemory_engine.keys import Keys
from agentmemory_engine.redis import Credentials, RedisAddress

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


async def read_identity(client: Any, keys: Keys) -> str | None:
    """The id in the identity record; None where there is none yet. Raises redis.exceptions.RedisError."""
    found = await client.get(keys.identity)
    return None if found is None else str(found)


async def set_login(client: Any, keys: Keys, login: Credentials) -> None:
    """Make a login that has this password and no right but to its memory's keys, or make it so again.

    The server is told the password's digest only. Raises redis.exceptions.RedisError.
    """
    digest = sha256(login.password.encode()).hexdigest()
    await client.execute_command("ACL", "SETUSER", login.username, "reset", "on", f"#{digest}", *keys.acl()[1:])
    await _save(client)


async def drop_login(client: Any, username: str) -> None:
    """End a login and its connections; no effect on one that is not there. Raises redis.exceptions.RedisError."""
    await client.execute_command("ACL", "DELUSER", username)
    await _save(client)


async def _save(client: Any) -> None:
    """Keep the users over a restart, where they stand in a file."""
    if await _has_acl_file(client):
        await client.execute_command("ACL", "SAVE")


async def _has_acl_file(client: Any) -> bool:
    """Whether users are kept in a file. A server that does not tell keeps them by other means."""
    try:
        return bool((await client.config_get("aclfile")).get("aclfile"))
    except ResponseError:
        return False


async def erase(client: Any, keys: Keys) -> int:
    """Delete every key of the memory, in small steps; answer how many. Raises redis.exceptions.RedisError."""
    erased, cursor = 0, 0
    while True:
        cursor, found = await client.scan(cursor, match=keys.prefix + "*", count=_PAGE)
        if found:
            erased += await client.unlink(*found)
        if not int(cursor):
            return erased
