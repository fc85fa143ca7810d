"""Stores of the user's own that are given another address: fine when the memory is there already (a new name, a replica
that took over from one that is gone), and refused when it is not, since what is in the former store would be left
behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentmemory_engine import administration, schema
from agentmemory_engine.errors import ForeignStore
from agentmemory_operator.changes import applied_to, moved_stores, with_applied_stores
from agentmemory_operator.connections import postgres_admin, redis_admin
from agentmemory_operator.errors import Blocked, OperatorFault, Refused
from agentmemory_operator.kube import KubeError
from agentmemory_operator.providers import postgres as postgres_providers
from agentmemory_operator.providers import redis as redis_providers
from agentmemory_operator.spec import Store
from agentmemory_operator.work import Work


@dataclass(frozen=True)
class _Seen:
    """What one address shows: the memory it holds, and which server it is, or which ones of a cluster, as long as they
    run."""

    identity: str | None
    servers: frozenset[str]


async def find_refused_moves(work: Work) -> list[Refused]:
    """The moves that would leave the memory, or what is pending, behind. Raises KubeError that may pass."""
    known: str = applied_to(work.memory).get("identity") or ""
    found = []
    for store in moved_stores(work.memory) if known else []:
        if why := await _find_obstacle(work, store, known):
            former = applied_to(work.memory)["external"][store]
            found.append(_refuse(store, former, why))
    return found


def _refuse(store: Store, former: Mapping[str, Any], why: str) -> Refused:
    return Refused(
        f"{store.capitalize()}Moved",
        f"spec.{store}.external cannot move there: {why}. Set host and port back to {former['host']} and "
        f"{former['port']}; or, where that is gone for good, delete this AgentMemory under deletionPolicy Retain and "
        "make it again.",
    )


async def _find_obstacle(work: Work, store: Store, known: str) -> str:
    place = applied_to(work.memory)["external"][store]["host"]
    try:
        now = await _look(work, store)
    except (OperatorFault, ForeignStore) as fault:
        return str(fault).rstrip(".")
    if now.identity is None:
        return "it holds no memory of this name; replicate or restore it there first"
    if now.identity != known:
        return "it holds another memory of this name"
    before = await _look_if_there(replace(work, memory=with_applied_stores(work.memory)), store)
    if before is not None and before.servers.isdisjoint(now.servers):
        return f"{place} still answers and is another server, which takes turns from agents; stop it first"
    return ""


async def _look_if_there(work: Work, store: Store) -> _Seen | None:
    try:
        return await _look(work, store)
    except (OperatorFault, ForeignStore):
        return None


async def _look(work: Work, store: Store) -> _Seen:
    """Raises OperatorFault, ForeignStore, and KubeError that may pass."""
    try:
        return await (_look_at_redis(work) if store == "redis" else _look_at_postgres(work))
    except KubeError as error:
        if error.passing:
            raise
        raise Blocked("Forbidden", f"the API server refuses: {error}") from error


async def _look_at_redis(work: Work) -> _Seen:
    access = await redis_providers.choose(work.memory.spec.redis).provide(work)
    async with redis_admin(access) as client:
        identity = await administration.read_identity(client, work.settings.keys)
        return _Seen(identity, await servers_of(client))


async def servers_of(client: Any) -> frozenset[str]:
    """The Redis behind a client: of a cluster all nodes, as an address leads to any of them. Raises RedisError."""
    return frozenset((await administration.find_users(client)).runs)


async def _look_at_postgres(work: Work) -> _Seen:
    access = await postgres_providers.choose(work.memory.spec.postgres).provide(work)
    async with postgres_admin(access) as admin:
        if await admin.fetchval("SELECT pg_is_in_recovery()"):
            raise Blocked("Standby", "it is a standby; promote it first")
        identity = await schema.read_identity(admin, work.settings)
        return _Seen(identity, frozenset({str(await admin.fetchval("SELECT pg_postmaster_start_time()"))}))
