"""What a workload costs in each mode: memory and disk of the stores, from the figures that were measured."""

from __future__ import annotations

from dataclasses import dataclass

from agentmemory.advice import figures
from agentmemory.advice.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Bytes, once the oldest events go, or after a year where they are kept for good. 0: there is no such store.

    `redis_parts` and `postgres_parts` say what holds how much of it.
    """

    redis_memory: int
    redis_disk: int
    postgres_memory: int
    postgres_disk: int
    sidecar_memory: int
    """Of each pod's sidecar."""
    redis_parts: dict[str, int]
    postgres_parts: dict[str, int]


def costs_of(workload: Workload, mode: str) -> Costs:
    """The costs in one of the modes Hybrid, Redis and Postgres."""
    redis = {} if mode == "Postgres" else _in_redis(workload, whole=mode == "Redis")
    postgres = {} if mode == "Redis" else _in_postgres(workload)
    held = figures.REDIS_EMPTY + sum(redis.values()) * figures.REDIS_OVERHEAD if redis else 0.0
    stored = sum(postgres.values()) if postgres else 0.0
    return Costs(
        redis_memory=round(held / figures.REDIS_SHARE),
        redis_disk=round(held * figures.APPEND_ONLY_FILE),
        postgres_memory=round(figures.SHARED_BUFFERS + _cached(workload)) if postgres else 0,
        postgres_disk=round(stored * figures.ROOM_TO_WORK) + (figures.WRITE_AHEAD_LOG if postgres else 0),
        sidecar_memory=figures.SIDECAR_EMBEDDING if _embeds_itself(workload) else figures.SIDECAR_IDLE,
        redis_parts={name: round(size) for name, size in redis.items()},
        postgres_parts={name: round(size) for name, size in postgres.items()},
    )


def recall_seconds(workload: Workload) -> float:
    """How long a semantic recall takes, p50, in an agent's own events."""
    events = workload.kept_events / workload.agents
    return figures.RECALL_SECONDS + figures.RECALL_SECONDS_AN_EVENT * events


def embedding_cores(workload: Workload) -> float:
    """Cores that the local model keeps busy in the busiest minutes."""
    if not _embeds_itself(workload):
        return 0.0
    return workload.turns_a_second * workload.events_per_turn / figures.EMBEDDED_A_SECOND


def _embeds_itself(workload: Workload) -> bool:
    return workload.recall == "semantic" and workload.dimensions == figures.LOCAL_DIMENSIONS


def event_json(workload: Workload) -> float:
    """Bytes of an event as it is journalled."""
    return float(workload.event_size + figures.EVENT_FRAME)


def _in_redis(workload: Workload, *, whole: bool) -> dict[str, float]:
    turn = figures.JOURNAL_ENTRY + figures.JOURNAL_BYTE * workload.events_per_turn * event_json(workload)
    window = figures.RECENT_MESSAGES * (figures.WINDOW_ENTRY + event_json(workload))
    turns_while_keys_last = workload.turns_a_day * figures.KEY_HOURS / 24
    parts = {
        "documents": workload.working * float(figures.DOCUMENT + workload.document_size),
        "recent messages": workload.working * window,
        "idempotency keys": turns_while_keys_last * figures.IDEMPOTENCY_KEY,
    }
    if not whole:
        outage = workload.outage or figures.PLANNED_OUTAGE
        return parts | {"journal, while Postgres is down": workload.turns_a_second * outage * turn}
    events = workload.turns_a_day * workload.kept_days * turn
    vectors = workload.kept_events * (figures.WINDOW_ENTRY + figures.NUMBER * workload.dimensions)
    return parts | {"events": events} | ({"vectors": vectors} if workload.recall == "semantic" else {})


def _in_postgres(workload: Workload) -> dict[str, float]:
    event = figures.EVENT_ROW + figures.EVENT_BYTE * workload.event_size
    parts = {
        "empty": float(figures.POSTGRES_EMPTY),
        "events": workload.kept_events * event,
        "snapshots of documents": workload.agents
        * figures.SNAPSHOTS
        * float(figures.SNAPSHOT_ROW + workload.document_size),
    }
    return parts | ({"vectors": workload.kept_events * _vector(workload)} if workload.recall == "semantic" else {})


def _vector(workload: Workload) -> float:
    copies = figures.VECTOR_COPIES if workload.dimensions <= figures.LARGEST_COVERED else 1
    return figures.VECTOR_ROW + float(copies * figures.NUMBER * workload.dimensions)


def _cached(workload: Workload) -> float:
    """What the agents that work at the same time recall from, so that a recall reads no disk."""
    if workload.recall == "none":
        return 0.0
    row = figures.VECTOR_ROW / 2 + figures.NUMBER * workload.dimensions if workload.recall == "semantic" else 0.0
    each = workload.kept_events / workload.agents
    return workload.working * each * (row + figures.EVENT_BYTE * workload.event_size)
