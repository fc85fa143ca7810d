"""Recall over many agents, with random vectors; by itself, and while they also read and write."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from agentmemory_engine.embedding import Vector
from agentmemory_engine.turns import Event, Turn
from benchmarks.conversation import document_of, sentence
from benchmarks.figures import Section, at_least, at_most
from benchmarks.hot_read import DOCUMENT_SIZE, POLL_INTERVAL, POLLING_AGENTS, address_of, read_request
from benchmarks.latency import Spread, spread_of
from benchmarks.open_loop import Due, run, spread_evenly
from benchmarks.placement import FREE
from benchmarks.raw_http import make_request
from benchmarks.ready_vectors import Matrix, ReadyVectors, normalised, to_vector, unit_vectors
from benchmarks.recall import STEPS, K, Query, measure_end_to_end, report_end_to_end, time_in_postgres
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage

_EVENTS_A_TURN = 50
_NOISE = 0.7
"""How far a query lies from the event that it was made of, whose vector has length 1."""
_BETWEEN_LOOKS = 0.2  # seconds
_MIXED_INTERVAL = 1.0  # seconds between two turns, and two recalls, of one agent


class Fleet:
    """Agents with as many events each, every one with a random vector that its text leads to."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        self._sizes = sizes
        self._seed = seed
        self._random = random.Random(seed)

    @cached_property
    def _vectors(self) -> list[Matrix]:
        return [unit_vectors(self._sizes.events_each, self._seed, agent) for agent in range(self._sizes.agents)]

    @cached_property
    def _contents(self) -> list[list[str]]:
        return [
            [f"{agent}/{index} {sentence(self._random)}" for index in range(self._sizes.events_each)]
            for agent in range(self._sizes.agents)
        ]

    def vector_of(self, text: str) -> Vector:
        """The vector of an event, from its text."""
        agent, _, index = text.partition(" ")[0].partition("/")
        return to_vector(self._vectors[int(agent)][int(index)])

    def ranked(self, query: Query) -> Mapping[str, float]:
        """The exact similarities of an agent's events, by their texts."""
        agent = int(query.agent.removeprefix("fleet-"))
        values = (self._vectors[agent] @ query.vector).tolist()
        return dict(zip(self._contents[agent], values, strict=True))

    def queries(self, count: int) -> list[Query]:
        """Each near an event of some agent."""
        noise = unit_vectors(count, self._seed, self._sizes.agents)
        made = []
        for number in range(count):
            agent = number % self._sizes.agents
            event = self._random.randrange(self._sizes.events_each)
            near = normalised(np.expand_dims(self._vectors[agent][event] + _NOISE * noise[number], 0))[0]
            made.append(Query(f"fleet-{agent}", sentence(self._random), near))
        return made

    async def load(self, stage: Stage) -> None:
        """Through the engine, by this process in the sidecar's stead, which would embed the texts."""
        await stage.memory.sidecar.stop()
        async with stage.engine(ReadyVectors(self.vector_of), work=True, max_delay=0.1) as memory:
            for agent, contents in enumerate(self._contents):
                for start in range(0, len(contents), _EVENTS_A_TURN):
                    events = [Event(content=content) for content in contents[start : start + _EVENTS_A_TURN]]
                    await memory.record(f"fleet-{agent}", Turn(events=events))
            while True:
                status = await memory.status()
                if status.pending == 0 and status.unembedded == 0:
                    break
                await asyncio.sleep(_BETWEEN_LOOKS)
        await stage.vacuum()
        await stage.memory.sidecar.start()


async def measure_fleet(stage: Stage, sizes: Sizes, seed: int, screen: Screen) -> Section:
    """Load, ask, and ask again under mixed load."""
    screen.begin("Recall, a fleet", 3 + STEPS)
    fleet = Fleet(sizes, seed)
    await fleet.load(stage)
    screen.step()
    queries = fleet.queries(sizes.queries)
    server = await time_in_postgres(stage, queries)
    screen.step()
    found = measure_end_to_end(stage, queries, fleet.ranked, "content", sizes, screen)
    section = Section(f"Semantic recall, {sizes.agents:,} agents with {sizes.events_each:,} events each")
    section.add_spread(f"{K} best, in Postgres", server, "ms")
    section.add(f"{K} best, in Postgres, p95", server.p95, "ms", at_most(1e-3))
    report_end_to_end(section, found)
    section.add(f"{K} best by text (hybrid), through the sidecar, p95", found.by_text.p95, "ms", at_most(8e-3))
    _report_mixed(section, _mixed_load(stage, queries, sizes, seed))
    screen.step()
    section.add(f"recall@{K} against float32", found.exactness.recall, "share", at_least(0.995))
    section.add("share of answers that are short", found.exactness.short, "share", at_most(0.0))
    section.notes.append(
        f"{len(queries)} queries. The design names 1,000 agents with 500 events. Vectors are random: the exact scan "
        "compares them as they were before they became halves. The tables were vacuumed."
    )
    return section


def _mixed_load(stage: Stage, queries: list[Query], sizes: Sizes, seed: int) -> dict[str, Spread]:
    with stage.http() as http:
        for number in range(POLLING_AGENTS):
            http.ask("PUT", address_of(f"poller-{number}"), document_of(DOCUMENT_SIZE, seed + number))
    times = run(stage.memory.sidecar.port, _schedule(queries, sizes.poll_seconds))
    return {kind: spread_of(values) for kind, values in times.items()}


def _schedule(queries: list[Query], seconds: float) -> list[Due]:
    """Each agent reads, writes and recalls, on a connection of its own for each."""
    event = {"type": "message", "role": "user", "content": "The figures are in; compare them with those of last year."}
    body = json.dumps({"events": [event], "working_memory": {"merge": {"step": 4}}}).encode()
    recalls = [query.by_vector() for query in queries]

    def write(line: int, _: int) -> bytes:
        return make_request("POST", f"/v1/agents/poller-{line % POLLING_AGENTS}/turns", body)

    def recall(line: int, count: int) -> bytes:
        return recalls[(line + count * POLLING_AGENTS) % len(recalls)]

    first, second, third = (range(start, start + POLLING_AGENTS) for start in (0, POLLING_AGENTS, 2 * POLLING_AGENTS))
    slow = {"interval": _MIXED_INTERVAL, "seconds": seconds}
    return [
        *spread_evenly(kind="read", connections=first, interval=POLL_INTERVAL, seconds=seconds, request=read_request),
        *spread_evenly(kind="turn", connections=second, request=write, **slow),
        *spread_evenly(kind="recall", connections=third, request=recall, **slow),
    ]


def _report_mixed(section: Section, spreads: dict[str, Spread]) -> None:
    rates = {"read": POLLING_AGENTS / POLL_INTERVAL, "turn": POLLING_AGENTS, "recall": POLLING_AGENTS}
    load = ", ".join(f"{rate:.0f} {kind}s" for kind, rate in rates.items()) + " a second (open loop)"
    for kind, spread in spreads.items():
        section.add_spread(f"mixed load: {kind}", spread, "ms", placement=FREE.describe(), detail=load)
    section.add("mixed load: recall by vector, p95", spreads["recall"].p95, "ms", at_most(4e-3))
