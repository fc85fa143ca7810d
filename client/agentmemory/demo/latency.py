"""How long things take, beside a raw Redis GET in the same run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from agentmemory.agent import Agent
from agentmemory.client import AgentMemory
from agentmemory.local import LocalStores

ROUNDS = 200
RAW = "redis GET, 2 KB"
RAW_KEY = "raw-reference"
DOCUMENT = {"notes": [{"n": number, "text": "what the agent has in mind just now"} for number in range(36)]}
PROBE = "latency-probe"


@dataclass(frozen=True)
class Measured:
    """One operation: times in seconds."""

    name: str
    p50: float
    p95: float


async def measure(client: AgentMemory, stores: LocalStores, asked: Agent, tick: Callable[[], None]) -> list[Measured]:
    """Each operation `ROUNDS` times, by turns, so that all meet the same disturbances; the raw GET first."""
    probe = client.agent(PROBE)
    await probe.put(DOCUMENT)
    body = (await client.agent(PROBE).working_memory()).document
    async with _raw(stores, str(body).encode()[:2048].ljust(2048)) as get:
        operations: dict[str, Callable[[], Awaitable[Any]]] = {
            RAW: get,
            "working memory, read": probe.working_memory,
            "turn": lambda: probe.record([{"type": "probe", "payload": 1}], merge={"probed": True}),
            "recall": lambda: asked.recall("which device did we choose?"),
            "hydrate": lambda: asked.hydrate("which device did we choose?"),
        }
        times: dict[str, list[float]] = {name: [] for name in operations}
        for _ in range(ROUNDS):
            for name, operation in operations.items():
                started = time.perf_counter()
                await operation()
                times[name].append(time.perf_counter() - started)
            tick()
    return [Measured(name, percentile(found, 0.5), percentile(found, 0.95)) for name, found in times.items()]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, -(-int(share * 100) * len(ranked) // 100) - 1)]


@asynccontextmanager
async def _raw(stores: LocalStores, value: bytes) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    connection = redis.asyncio.Redis.from_url(
        stores.redis_url,
        username=stores.redis_admin_user,
        password=stores.redis_admin_password,
        single_connection_client=True,
    )
    try:
        await connection.set(RAW_KEY, value)
        yield lambda: connection.get(RAW_KEY)
        await connection.delete(RAW_KEY)
    finally:
        await connection.aclose()
