"""Changes of a spec that cannot be done to a memory that is there: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentmemory_operator.errors import Refused
from agentmemory_operator.spec import AgentMemory, Spec

_WHY = {
    "mode": "what one mode has stored is not where another looks for it",
    "shards": "every agent would be looked for in another shard",
    "redis": "what is pending in the present Redis would be left behind",
    "postgres": "what is remembered in the present Postgres would be left behind",
    "provider": "what is embedded by one provider is not found by another",
    "dimensions": "vectors of another length cannot be compared with those that are there",
}


def facts_of(memory: AgentMemory) -> dict[str, Any]:
    """What is kept in status.applied once it was applied."""
    spec = memory.spec
    return {
        "mode": spec.mode,
        "shards": spec.shards,
        "provider": spec.embedding.provider,
        "dimensions": spec.embedding.dimensions,
        "redis": "Managed" if spec.redis.managed is not None else "External",
        "postgres": "Managed" if spec.postgres.managed is not None else "External",
    }


def find_unserved(spec: Spec) -> Refused | None:
    """What the resource can say and this version does not do yet: its sidecars would refuse to start."""
    if spec.mode != "Hybrid":
        return Refused("ModeNotServed", f"This version runs mode Hybrid only, not {spec.mode}; set spec.mode.")
    if spec.embedding.provider == "OpenAI":
        return Refused("ProviderNotServed", "This version embeds with Local or None; set spec.embedding.provider.")
    if spec.recall.index.kind != "Exact":
        return Refused("IndexNotServed", "This version recalls by an exact scan; set spec.recall.index.kind to Exact.")
    return None


def is_applied(memory: AgentMemory) -> bool:
    """Whether there is something running that has to be left alone."""
    return bool((memory.raw.get("status") or {}).get("applied"))


def refusals(memory: AgentMemory) -> list[Refused]:
    """The members that are other than they were applied, and cannot be."""
    applied: Mapping[str, Any] = (memory.raw.get("status") or {}).get("applied") or {}
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
