"""Changes of a spec that cannot be done to a memory that is there: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from agentmemory_operator.errors import Refused
from agentmemory_operator.spec import (
    STORES,
    AgentMemory,
    ExternalPostgres,
    ExternalRedis,
    ManagedPostgres,
    ManagedRedis,
    PostgresSpec,
    RedisSpec,
    Spec,
    Store,
)

_WHY = {
    "mode": "what one mode has stored is not where another looks for it",
    "shards": "every agent would be looked for in another shard",
    "redis": "what the present Redis holds would be left behind",
    "postgres": "what is remembered in the present Postgres would be left behind",
}


def facts_of(memory: AgentMemory) -> dict[str, Any]:
    """What is kept in status.applied once it was applied."""
    spec = memory.spec
    managed = {"redis": spec.redis.managed, "postgres": spec.postgres.managed}
    return {
        "mode": spec.mode,
        "shards": spec.shards,
        **{store: "External" if managed[store] is None else "Managed" for store in spec.stores},
    }


def places_of(memory: AgentMemory) -> dict[str, Any]:
    """Where the stores of the user's own are, as status.applied.external keeps it; None for any other."""
    spec = memory.spec
    return {
        "redis": msgspec.to_builtins(spec.redis.external) if spec.redis.external else None,
        "postgres": msgspec.to_builtins(spec.postgres.external) if spec.postgres.external else None,
    }


def find_unserved(spec: Spec) -> Refused | None:
    """What the resource can say and this version does not do yet: its sidecars would refuse to start."""
    if spec.mode == "Redis" and spec.recall.index.kind != "Exact":
        return Refused("IndexNotServed", "Mode Redis recalls by an exact scan; set spec.recall.index.kind to Exact.")
    return None


def applied_to(memory: AgentMemory) -> Mapping[str, Any]:
    """What status.applied holds; empty before anything was applied."""
    return (memory.raw.get("status") or {}).get("applied") or {}


def is_applied(memory: AgentMemory) -> bool:
    """Whether there is something running that has to be left alone."""
    return bool(applied_to(memory))


def refusals(memory: AgentMemory) -> list[Refused]:
    """The members that are other than they were applied, and cannot be."""
    applied = applied_to(memory)
    found = []
    for member, value in facts_of(memory).items():
        before = applied.get(member)
        if before is not None and before != value:
            found.append(
                Refused(
                    f"{member.capitalize()}Changed",
                    f"{member} cannot change from {before} to {value}: {_WHY[member]}. Set it back, "
                    "or make another AgentMemory.",
                )
            )
    return found


def moved_stores(memory: AgentMemory) -> list[Store]:
    """The external stores whose address is another one than it was applied: each has to hold the memory already."""
    before = applied_to(memory).get("external") or {}
    now = places_of(memory)
    return [store for store in STORES if now[store] and _is_elsewhere(before.get(store), now[store])]


def _is_elsewhere(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    """Whether an external store was at another place. At the same one, the login and TLS of now are the right ones."""
    return bool(before) and (not now or _place(before or {}) != _place(now))


def _place(external: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(external.get(member) for member in ("host", "port", "database"))


def with_applied_stores(memory: AgentMemory) -> AgentMemory:
    """The memory in the mode that was applied, with the stores where they were, whatever its spec says by now."""
    applied = applied_to(memory)
    if not applied:
        return memory
    spec = replace(memory.spec, mode=applied.get("mode", memory.spec.mode))
    redis = _applied_redis(memory, applied) if "redis" in spec.stores else RedisSpec()
    postgres = _applied_postgres(memory, applied) if "postgres" in spec.stores else PostgresSpec()
    return replace(memory, spec=replace(spec, redis=redis, postgres=postgres))


def _applied_redis(memory: AgentMemory, applied: Mapping[str, Any]) -> RedisSpec:
    spec, before = memory.spec.redis, (applied.get("external") or {}).get("redis")
    if _is_elsewhere(before, places_of(memory)["redis"]):
        return RedisSpec(external=msgspec.convert(before, ExternalRedis))
    return RedisSpec(managed=spec.managed or ManagedRedis()) if applied.get("redis") == "Managed" else spec


def _applied_postgres(memory: AgentMemory, applied: Mapping[str, Any]) -> PostgresSpec:
    spec, before = memory.spec.postgres, (applied.get("external") or {}).get("postgres")
    if _is_elsewhere(before, places_of(memory)["postgres"]):
        return PostgresSpec(external=msgspec.convert(before, ExternalPostgres), pooler=spec.pooler)
    if applied.get("postgres") == "Managed":
        return PostgresSpec(managed=spec.managed or ManagedPostgres(), pooler=spec.pooler)
    return spec
