"""Whether stores that others run can hold a memory: what they are, and what an administrator has to change first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import asyncpg
from redis.exceptions import ResponseError

from agentmemory_engine.administration import everywhere
from agentmemory_engine.postgres import identifier

_POSTGRES = (15,)
_VECTOR = (0, 8)
_REDIS = {"redis": (7, 0), "valkey": (8, 0)}


@dataclass(frozen=True, kw_only=True)
class PostgresFacts:
    """A database, as the login that asked sees it. Versions are as the server writes them, `17.2` or `0.8.0`."""

    version: str
    vector_available: str | None
    """pgvector as the server could install it; None where it has none."""
    vector_installed: str | None
    """pgvector as this database has it."""
    username: str
    superuser: bool
    can_create_role: bool
    can_create_schema: bool
    """Or the schema is there already."""
    database: str


@dataclass(frozen=True, kw_only=True)
class RedisFacts:
    """A server, as the login that asked sees it. `max_memory` is in bytes, 0 without a limit."""

    flavour: str
    """`redis` or `valkey`."""
    version: str
    role: str
    eviction_policy: str
    append_only: bool
    appendfsync: str | None
    """`always`, `everysec` or `no`; None where the server does not tell."""
    max_memory: int
    username: str | None
    """None where this login may not even ask for its own name."""
    can_manage_users: bool
    default_may_all: bool = True
    """Whether user `default`, as which a server loads its append-only file, may do everything, logged in or not."""
    nodes: int = 1
    """Of a cluster: how many were looked at; the weakest of each is told."""

    @property
    def persistence(self) -> str:
        """What is in force, as a status says it: `none`, `appendfsync=everysec`, or `Unknown`."""
        if not self.append_only:
            return "none"
        return "Unknown" if self.appendfsync is None else f"appendfsync={self.appendfsync}"


@dataclass(frozen=True)
class Problem:
    """What keeps a store from being used. `reason` is one CamelCase word, `message` says what to do."""

    reason: str
    message: str


async def examine_postgres(connection: asyncpg.Connection[Any], schema: str) -> PostgresFacts:
    """Look at the database of this connection; changes nothing. Raises asyncpg.PostgresError."""
    statement = files(__package__).joinpath("queries", "examine.sql").read_text()
    row = await connection.fetchrow(statement, schema)
    assert row is not None
    return PostgresFacts(**row)


async def examine_redis(client: Any) -> RedisFacts:
    """Look at the server of this redis-py client, or at every node of its cluster; changes nothing.

    Raises redis.exceptions.RedisError.
    """
    found = await everywhere(client, _examine_one)
    return found[0] if len(found) == 1 else weakest(found)


def weakest(found: Sequence[RedisFacts]) -> RedisFacts:
    """What may be said of all nodes of a cluster; its replicas are masters of tomorrow."""
    policies = sorted({one.eviction_policy for one in found}, key=lambda policy: policy == "noeviction")
    syncs = {one.appendfsync for one in found}
    return replace(
        min(found, key=lambda one: _release(one.version)),
        nodes=len(found),
        role="master",
        eviction_policy=policies[0],
        append_only=all(one.append_only for one in found),
        appendfsync=next((sync for sync in (None, "no", "everysec", "always") if sync in syncs), None),
        max_memory=min((one.max_memory for one in found if one.max_memory), default=0),
        can_manage_users=all(one.can_manage_users for one in found),
        default_may_all=all(one.default_may_all for one in found),
    )


async def _examine_one(client: Any) -> RedisFacts:
    info = await client.info()
    flavour = "valkey" if "valkey_version" in info else "redis"
    username = await _whoami(client)
    return RedisFacts(
        flavour=flavour,
        version=str(info[f"{flavour}_version"]),
        role=info.get("role", ""),
        eviction_policy=info.get("maxmemory_policy", ""),
        append_only=bool(info.get("aof_enabled")),
        appendfsync=await _appendfsync(client),
        max_memory=int(info.get("maxmemory", 0)),
        username=username,
        can_manage_users=await _can_manage_users(client, username),
        default_may_all=await _default_may_all(client),
    )


async def _appendfsync(client: Any) -> str | None:
    try:
        value: str | None = (await client.config_get("appendfsync")).get("appendfsync")
    except ResponseError:
        return None
    return value


async def _whoami(client: Any) -> str | None:
    try:
        return _text(await client.execute_command("ACL", "WHOAMI"))
    except ResponseError:
        return None


async def _can_manage_users(client: Any, username: str | None) -> bool:
    if username is None:
        return False
    try:
        answer = await client.execute_command("ACL", "DRYRUN", username, "ACL", "SETUSER", "anyone")
    except ResponseError:
        return False
    return _text(answer) == "OK"


async def _default_may_all(client: Any) -> bool:
    """True, too, where the server does not tell."""
    try:
        user = await client.acl_getuser("default")
    except ResponseError:
        return True
    return user is None or ("+@all" in user["categories"] and not user["commands"] and "~*" in user["keys"])


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def problems_of(facts: PostgresFacts | RedisFacts) -> list[Problem]:
    """What has to be changed before this store can hold a memory; empty when nothing has."""
    return list(_of_postgres(facts) if isinstance(facts, PostgresFacts) else _of_redis(facts))


def _of_postgres(facts: PostgresFacts) -> Iterator[Problem]:
    if _release(facts.version) < _POSTGRES:
        yield Problem("VersionTooOld", f"This is PostgreSQL {facts.version}; version 15 or newer is needed.")
    yield from _of_vector(facts)
    user = identifier(facts.username)
    if not (facts.superuser or facts.can_create_role):
        yield Problem("MissingRights", f"This login cannot make roles; a superuser runs: ALTER ROLE {user} CREATEROLE")
    if not facts.can_create_schema:
        grant = f"GRANT CREATE ON DATABASE {identifier(facts.database)} TO {user}"
        yield Problem("MissingRights", f"This login cannot make a schema; the database's owner runs: {grant}")


def _of_vector(facts: PostgresFacts) -> Iterator[Problem]:
    installed, available = facts.vector_installed, facts.vector_available
    where = f"in database {identifier(facts.database)}"
    if installed is not None and _release(installed) >= _VECTOR:
        return
    if available is None or _release(available) < _VECTOR:
        found = "no pgvector" if available is None else f"pgvector {available}"
        yield Problem("VectorExtensionMissing", f"The server has {found}; install pgvector 0.8 or newer on it.")
    elif installed is not None:
        update = "ALTER EXTENSION vector UPDATE"
        yield Problem("VectorExtensionTooOld", f"pgvector is {installed}; a superuser runs {where}: {update}")
    elif not facts.superuser:
        create = "CREATE EXTENSION vector"
        yield Problem("VectorExtensionMissing", f"pgvector is not installed; a superuser runs {where}: {create}")


def _of_redis(facts: RedisFacts) -> Iterator[Problem]:
    runs = "runs" if facts.nodes == 1 else f"runs, on each of the {facts.nodes} nodes"
    if _release(facts.version) < _REDIS[facts.flavour]:
        found = f"{facts.flavour.capitalize()} {facts.version}"
        yield Problem("VersionTooOld", f"This is {found}; Redis 7.0 or Valkey 8.0 or newer is needed.")
    if facts.role != "master":
        yield Problem("NotMaster", f"This server is a {facts.role}; the address has to lead to the master.")
    if facts.eviction_policy != "noeviction":
        yield Problem(
            "WrongEvictionPolicy",
            f"maxmemory-policy is {facts.eviction_policy}, by which unflushed memory may be evicted; "
            f"an administrator {runs}: CONFIG SET maxmemory-policy noeviction",
        )
    if facts.append_only and not facts.default_may_all:
        yield Problem(
            "DefaultUserRestricted",
            "A server loads its append-only file as user default, and may leave out what default may not do "
            f"(redis#14541, valkey#3983): a restart would lose turns. An administrator {runs}: "
            "ACL SETUSER default off ~* &* +@all",
        )
    if not facts.can_manage_users:
        grant = f"ACL SETUSER {facts.username or '<its name>'} +acl"
        yield Problem("MissingRights", f"This login cannot make others; an administrator {runs}: {grant}")


def _release(version: str) -> tuple[int, ...]:
    """`17.2 (Debian …)` or `0.8.0` as numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split(" ")[0]))
