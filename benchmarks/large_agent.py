"""One agent with a past of tens of thousands of events: recall beside the exact scan, export, erasure, memory."""

from __future__ import annotations

import time
from dataclasses import replace

from agentmemory import AgentMemory
from benchmarks.figures import Section
from benchmarks.fleet import Fleet
from benchmarks.importing import settled_footprint
from benchmarks.recall import STEPS, K, measure_end_to_end, report_end_to_end, time_in_postgres
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage

_AGENT = "fleet-0"


async def measure_large_agent(stage: Stage, sizes: Sizes, seed: int, screen: Screen) -> Section:
    """Load it, ask it, export it and erase it."""
    screen.begin("One large agent", 4 + STEPS)
    sizes = replace(sizes, agents=1, events_each=sizes.large_agent, queries=min(sizes.queries, 100))
    fleet = Fleet(sizes, seed)
    await fleet.load(stage)
    screen.step()
    before = await settled_footprint(stage)
    queries = fleet.queries(sizes.queries)
    server = await time_in_postgres(stage, queries)
    screen.step()
    found = measure_end_to_end(stage, queries, fleet.ranked, "content", sizes, screen)
    after = await settled_footprint(stage)
    section = Section(f"One agent with {sizes.events_each:,} events")
    section.add_spread(f"{K} best, in Postgres", server, "ms")
    report_end_to_end(section, found)
    section.add(f"recall@{K} against float32", found.exactness.recall, "share")
    section.add(
        "sidecar with its model and the agent's keyword index, more than before", after.fair - before.fair, "MB"
    )
    async with AgentMemory(stage.memory.url) as memory:
        agent = memory.agent(_AGENT)
        started = time.perf_counter()
        lines = [line async for line in agent.export()]
        section.add("export, lines a second", len(lines) / (time.perf_counter() - started), "/s")
        screen.step()
        started = time.perf_counter()
        receipt = await agent.erase(within=60.0)
        seconds = time.perf_counter() - started
        section.add("erasure, events a second", sizes.events_each / seconds, "/s")
        screen.step()
    section.notes.append(
        f"{len(queries)} queries; random vectors; tables vacuumed. The erasure took {seconds:.1f} s"
        f"{'' if receipt.done else ', and was not carried out by then'}."
    )
    return section
