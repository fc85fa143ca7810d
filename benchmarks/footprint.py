"""What memory holds costs in bytes: `python -m benchmarks.footprint`. `agentmemory advise` has its constants from it.

Everything is written in two sizes, so that what a thing costs falls into a fixed part and a part of its own size.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass
from typing import Any

import msgspec

from agentmemory_engine.embedding.assets import DIMENSIONS
from agentmemory_engine.memory import Memory
from agentmemory_engine.turns import DocumentChange, Event, Turn
from benchmarks.conversation import text_of
from benchmarks.ready_vectors import ReadyVectors, to_vector, unit_vectors
from benchmarks.stage import Stage

AGENTS = 200
TURNS = 100
SMALL, LARGE = 100, 1000
"""Characters of an event."""
SMALL_DOCUMENT, LARGE_DOCUMENT = 512, 8192
KINDS = ("journal", "window", "document", "key")
TABLES = ("memory_events", "event_embeddings", "working_snapshots")
_SEED = 1
_BETWEEN_LOOKS = 0.05  # seconds


@dataclass
class Cost:
    """What one thing takes in bytes, at two sizes of it."""

    small: float
    large: float

    def line(self, small: int, large: int) -> dict[str, float]:
        """As a fixed part and bytes for each byte of its own."""
        slope = (self.large - self.small) / (large - small)
        return {"fixed": round(self.small - slope * small, 1), "per_byte": round(slope, 3)}


async def main() -> None:
    """Measure, and write JSON."""
    small = await _measure(SMALL, SMALL_DOCUMENT)
    large = await _measure(LARGE, LARGE_DOCUMENT)
    report: dict[str, Any] = {
        name: Cost(small[name], large[name]).line(*_sizes_of(name)) for name in small if name != "overhead"
    }
    report["redis_total_to_sum_of_keys"] = [round(one["overhead"], 3) for one in (small, large)]
    report["dimensions"] = DIMENSIONS
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")


def _sizes_of(name: str) -> tuple[int, int]:
    return (SMALL_DOCUMENT, LARGE_DOCUMENT) if name in ("document", "working_snapshots") else (SMALL, LARGE)


async def _measure(length: int, document: int) -> dict[str, float]:
    vectors = [to_vector(row) for row in unit_vectors(256, _SEED)]
    embedder = ReadyVectors(lambda text: vectors[len(text) % len(vectors)])
    async with Stage("None") as stage:
        await stage.memory.sidecar.stop()
        before = _used(stage)
        async with stage.engine(embedder, work=False) as memory:
            await _write(memory, length, document)
        found = _redis_costs(stage, before)
        async with stage.engine(embedder, work=True, max_delay=0.1) as memory:
            await _settle(memory)
        await stage.vacuum()
        found |= await _postgres_costs(stage)
        await stage.memory.sidecar.start()
    return found


async def _write(memory: Memory, length: int, document: int) -> None:
    """Each agent's turns, with one event each; the first one writes the document as well."""
    texts = random.Random(_SEED)

    async def write(agent: int) -> None:
        body = msgspec.json.encode({"text": text_of(document - 11, texts)})
        for number in range(TURNS):
            change = DocumentChange(set=msgspec.Raw(body)) if number == 0 else None
            event = Event(role="user", content=text_of(length, texts))
            await memory.record(f"agent-{agent:04}", Turn(session="day-1", events=[event], working_memory=change))

    await asyncio.gather(*(write(agent) for agent in range(AGENTS)))


async def _settle(memory: Memory) -> None:
    while True:
        status = await memory.status()
        if status.pending == 0 and status.unembedded == 0:
            return
        await asyncio.sleep(_BETWEEN_LOOKS)


def _used(stage: Stage) -> int:
    redis = stage.redis()
    try:
        info = redis.command("INFO", "memory").decode()
        return int(info.partition("used_memory:")[2].split()[0])
    finally:
        redis.close()


def _redis_costs(stage: Stage, before: int) -> dict[str, float]:
    """Bytes of a pending turn, a message of a window, a document, an idempotency key; and the whole to their sum."""
    redis = stage.redis()
    totals = dict.fromkeys(KINDS, 0)
    try:
        for key in redis.command("KEYS", "*"):
            kind = key.decode().partition("}:")[2].partition(":")[0]
            if kind in totals:
                totals[kind] += int(redis.command("MEMORY", "USAGE", key, "SAMPLES", 0))
        kept = sum(int(redis.command("LLEN", key)) for key in redis.command("KEYS", "*}:window:*"))
    finally:
        redis.close()
    counts = {"journal": AGENTS * TURNS, "window": kept, "document": AGENTS, "key": AGENTS * TURNS}
    costs = {kind: totals[kind] / counts[kind] for kind in KINDS}
    return costs | {"overhead": (_used(stage) - before) / sum(totals.values())}


async def _postgres_costs(stage: Stage) -> dict[str, float]:
    """Bytes of a row with its indexes, by table."""
    admin = await stage.admin()
    found = {}
    try:
        for table in TABLES:
            name = f'"{stage.settings.keys.schema}".{table}'
            await admin.execute(f"VACUUM (ANALYZE) {name}")
            size = await admin.fetchval("SELECT pg_total_relation_size($1::regclass)", name)
            found[table] = size / await admin.fetchval(f"SELECT count(*) FROM {name}")
    finally:
        await admin.close()
    return found


if __name__ == "__main__":
    asyncio.run(main())
