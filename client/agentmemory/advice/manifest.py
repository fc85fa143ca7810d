"""The AgentMemory in YAML that follows from advice."""

from __future__ import annotations

import math
from typing import Any

from agentmemory.advice import figures
from agentmemory.advice.costs import Costs
from agentmemory.advice.decision import Advice
from agentmemory.advice.figures import LOCAL_DIMENSIONS
from agentmemory.advice.quantities import round_up, write_seconds
from agentmemory.advice.workload import Workload

_SMALLEST_VOLUME = 1 << 30
_SMALLEST_REDIS = 64 << 20
_SMALLEST_POSTGRES = 256 << 20


def manifest(advice: Advice, *, name: str = "research") -> dict[str, Any]:
    """The resource. A store that is there is `external`, with a host and a Secret to fill in."""
    workload, costs = advice.workload, advice.costs
    spec: dict[str, Any] = {
        "mode": advice.mode,
        "workingMemory": {"ttl": write_seconds(workload.ttl)},
        "embedding": _embedding(workload),
    }
    if workload.retention is not None:
        spec["retention"] = {"events": write_seconds(workload.retention)}
        if advice.mode == "Redis":
            # The bound by number is not to be the closer one.
            turns = math.ceil(workload.kept_turns_of_each)
            spec["retention"]["turns"] = max(figures.TURNS_KEPT, min(figures.MOST_TURNS_KEPT, turns))
    if advice.mode != "Postgres":
        spec["redis"] = _redis(workload, costs)
    if advice.mode != "Redis":
        spec["postgres"] = _postgres(workload, costs)
    return {
        "apiVersion": "agentmemory.io/v1alpha1",
        "kind": "AgentMemory",
        "metadata": {"name": name},
        "spec": spec,
    }


def _embedding(workload: Workload) -> dict[str, Any]:
    if workload.recall != "semantic":
        return {"provider": "None"}
    if workload.dimensions == LOCAL_DIMENSIONS:
        return {"provider": "Local", "dimensions": LOCAL_DIMENSIONS}
    return {"provider": "OpenAI", "model": "text-embedding-3-small", "dimensions": workload.dimensions}


def _redis(workload: Workload, costs: Costs) -> dict[str, Any]:
    if workload.has_redis:
        return {"external": {"host": "redis.example", "secretRef": {"name": "redis-admin"}}}
    memory = round_up(costs.redis_memory, least=_SMALLEST_REDIS)
    return {
        "managed": {
            "storage": {"size": round_up(costs.redis_disk, least=_SMALLEST_VOLUME)},
            "persistence": {"appendfsync": "always" if workload.loss == "none" else "everysec"},
            "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}},
        }
    }


def _postgres(workload: Workload, costs: Costs) -> dict[str, Any]:
    if workload.has_postgres:
        return {"external": {"host": "postgres.example", "secretRef": {"name": "postgres-admin"}}}
    memory = round_up(costs.postgres_memory, least=_SMALLEST_POSTGRES)
    return {
        "managed": {
            "storage": {"size": round_up(costs.postgres_disk, least=_SMALLEST_VOLUME)},
            "resources": {"requests": {"memory": memory}},
        }
    }
