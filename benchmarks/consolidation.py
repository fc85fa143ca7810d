"""Consolidation: a full journal moved into Postgres, beside a bridge that inserts turn by turn under an HNSW index."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from zlib import crc32

from agentmemory_engine.embedding import Embedder
from agentmemory_engine.embedding.none import NullEmbedder
from agentmemory_engine.turns import Event, Turn
from benchmarks.conversation import text_of
from benchmarks.figures import Section, at_least
from benchmarks.inline_index import InlineIndex
from benchmarks.ready_vectors import ReadyVectors, to_vector, unit_vectors
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.work import PYTHON, Work, measured

AGENTS = 50
TEXT_LENGTH = 350
BATCH_SIZES = (256, 500, 2000)
_WITH_VECTORS = "256, and their vectors, ready-made, stored"
_BASELINE = "turn by turn, under HNSW"
_BETWEEN_LOOKS = 0.05  # seconds
_TARGET, _TARGET_RATIO = 20_000, 40


async def measure_consolidation(stage: Stage, sizes: Sizes, seed: int, screen: Screen) -> Section:
    """The sidecar stands still meanwhile: this process does its work."""
    screen.begin("Consolidation", sizes.consolidation_rounds + 1)
    await stage.memory.sidecar.stop()
    try:
        runs = await _Rounds(stage, sizes, seed).run(screen)
    finally:
        await stage.memory.sidecar.start()
    return _report(runs, sizes)


class _Rounds:
    """All ways, by turns; the tables grow from round to round."""

    def __init__(self, stage: Stage, sizes: Sizes, seed: int) -> None:
        self._stage = stage
        self._sizes = sizes
        self._texts = random.Random(seed)
        self._seed = seed
        stores = stage.memory.stores
        self._processes = {"Postgres": stores.postgres.pid, "Redis": stores.valkey.pid}
        vectors = [to_vector(row) for row in unit_vectors(256, seed)]
        self._ready = ReadyVectors(lambda text: vectors[crc32(text.encode()) % len(vectors)])

    async def run(self, screen: Screen) -> dict[str, list[Work]]:
        """What each way took in each round; the first round is to warm up."""
        runs: dict[str, list[Work]] = {}
        async with InlineIndex(await self._stage.admin(), AGENTS, TEXT_LENGTH, self._seed) as baseline:
            await baseline.fill(self._sizes.indexed_rows)
            for number in range(self._sizes.consolidation_rounds + 1):
                for way, work in (await self._round(baseline)).items():
                    if number > 0:
                        runs.setdefault(way, []).append(work)
                screen.step()
        return runs

    async def _round(self, baseline: InlineIndex) -> dict[str, Work]:
        works = {f"{size}": await self._consolidate(size) for size in BATCH_SIZES}
        works[_WITH_VECTORS] = await self._consolidate_and_embed()
        works[_BASELINE] = await baseline.insert(self._sizes.indexed_inserts, self._processes)
        return works

    async def _consolidate(self, batch_size: int) -> Work:
        # A short delay makes the worker look often; every batch is due at once, as it is full or hurried.
        memory = self._stage.engine(NullEmbedder(), work=False, batch_size=batch_size, max_delay=0.1)
        async with memory:
            await self._fill_journal(NullEmbedder())
            with measured(self._sizes.turns, self._processes) as work:
                await memory.consolidator.drain()
            await memory.consolidator.stop()
        return work

    async def _consolidate_and_embed(self) -> Work:
        await self._fill_journal(self._ready)
        with measured(self._sizes.turns, self._processes) as work:
            async with self._stage.engine(self._ready, work=True, max_delay=0.1) as memory:
                while True:
                    status = await memory.status()
                    if status.pending == 0 and status.unembedded == 0:
                        break
                    await asyncio.sleep(_BETWEEN_LOOKS)
        return work

    async def _fill_journal(self, embedder: Embedder) -> None:
        """Turns of one message each, dealt to the agents in turn."""
        turns = iter(range(self._sizes.turns))
        async with self._stage.engine(embedder, work=False) as memory:

            async def write(numbers: Iterator[int]) -> None:
                for number in numbers:
                    event = Event(role="user", content=text_of(TEXT_LENGTH, self._texts))
                    await memory.record(f"agent-{number % AGENTS}", Turn(session="day-1", events=[event]))

            await asyncio.gather(*(write(turns) for _ in range(AGENTS)))


def _report(runs: dict[str, list[Work]], sizes: Sizes) -> Section:
    section = Section(f"Consolidation of {sizes.turns:,} turns of {TEXT_LENGTH} characters from {AGENTS} agents")
    for way, works in runs.items():
        target = at_least(_TARGET) if way.isdecimal() else None
        label = f"batches of {way}" if way != _BASELINE else way
        section.add(
            f"turns a second and core, {label}", [work.rate_a_core(PYTHON, "Postgres") for work in works], "/s", target,
            detail=_shares(works),
        )  # fmt: skip
        section.add(f"turns a second, {label}", [work.rate for work in works], "/s")
    _report_ratio(section, runs, f"{BATCH_SIZES[0]}", at_least_forty=True)
    _report_ratio(section, runs, _WITH_VECTORS, at_least_forty=False)
    section.notes.append(
        "A core is a second of processor time of this process and of all of Postgres together; nothing is pinned. "
        f"The baseline's rate is of {sizes.indexed_inserts:,} inserts a round into a table of {sizes.indexed_rows:,} "
        "rows, each with its vector as text in a transaction of its own (m 16, ef_construction 64). Its vectors stand "
        "in the row; ours come later, so the line with vectors is the like-for-like one."
    )
    return section


def _report_ratio(section: Section, runs: dict[str, list[Work]], way: str, *, at_least_forty: bool) -> None:
    pairs = zip(runs[way], runs[_BASELINE], strict=True)
    processes = (PYTHON, "Postgres")
    ratios = [ours.rate_a_core(*processes) / theirs.rate_a_core(*processes) for ours, theirs in pairs]
    target = at_least(_TARGET_RATIO) if at_least_forty else None
    section.add(f"batches of {way}, to {_BASELINE}, a core", ratios, "x", target)


def _shares(works: list[Work]) -> str:
    """Processor time a turn in each process, of the last round."""
    last = works[-1]
    return ", ".join(f"{name} {last.microseconds(name):,.0f} us" for name in last.processor) + " a turn"
