"""Semantic recall: its time in Postgres, and end to end by vector and by text; its answers against an exact scan."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any

import asyncpg

from agentmemory_engine.embedding import to_floats
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.recall import RecallQuery
from benchmarks.exact import Exactness, exactness
from benchmarks.figures import Section
from benchmarks.latency import Spread, middle, spread_of
from benchmarks.placement import FREE
from benchmarks.probe import Probe, measure_by_turns
from benchmarks.raw_http import RawHttp, make_request
from benchmarks.ready_vectors import Matrix, ReadyVectors, to_vector
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage

K = 5
_ROUNDS = 3
_WARM_UP = 10


@dataclass(frozen=True)
class Query:
    """A question to one agent, as a text and as a vector; the two need not mean the same."""

    agent: str
    text: str
    vector: Matrix

    @property
    def path(self) -> str:
        return f"/v1/agents/{self.agent}/recall"

    def by_vector(self) -> bytes:
        """The request with the vector."""
        return make_request("POST", self.path, json.dumps({"vector": self.vector.tolist(), "k": K}).encode())

    def by_text(self) -> bytes:
        """The request with the text."""
        return make_request("POST", self.path, json.dumps({"query": self.text, "k": K}).encode())


@dataclass(frozen=True)
class EndToEnd:
    """Through the sidecar: times by vector and by text, and how exact the answers by vector were."""

    by_vector: Spread
    by_text: Spread
    exactness: Exactness


class ExplainingPostgres(Postgres):
    """Has each statement of recall explained before it runs, and keeps the time that it took in the server."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.times: list[float] = []

    async def fetch(self, name: str, *args: Any, **parts: str) -> list[asyncpg.Record]:
        """As in the engine."""
        if name.startswith("recall"):
            # Timing each node costs more than some of the nodes do.
            explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {self.query(name, **parts)}"
            async with self.session() as session:
                plan = json.loads(await session.fetchval(explain, *args))
            self.times.append(plan[0]["Execution Time"] / 1000)
        return await super().fetch(name, *args, **parts)


async def time_in_postgres(stage: Stage, queries: Sequence[Query]) -> Spread:
    """The time of the very statements that the engine runs, as Postgres counts it; the first few do not count."""
    postgres = stage.postgres(ExplainingPostgres)
    assert isinstance(postgres, ExplainingPostgres)
    embedder = ReadyVectors(lambda _: to_vector(queries[0].vector))
    async with Memory(stage.settings, stage.redis_store(), postgres, embedder, work=False) as memory:
        for query in [*queries[:_WARM_UP], *queries]:
            await memory.recall(query.agent, RecallQuery(vector=to_floats(to_vector(query.vector)), k=K))
    return spread_of(postgres.times[min(_WARM_UP, len(queries)) :])


def measure_end_to_end(
    stage: Stage, queries: Sequence[Query], ranked: Callable[[Query], Mapping[str, float]], name: str, sizes: Sizes,
    screen: Screen,
) -> EndToEnd:  # fmt: skip
    """Through the sidecar. `ranked` gives the exact similarities by the member `name` of a hit."""
    with stage.http() as http:
        answers = [(_answered(http, query, name), ranked(query)) for query in queries]
        by_vector, by_text = [query.by_vector() for query in queries], [query.by_text() for query in queries]
        probes = {
            "vector": Probe(FREE, lambda count: _cycled(by_vector, count), http.exchange),
            "text": Probe(FREE, lambda count: _cycled(by_text, count), http.exchange),
        }
        plan = replace(sizes, rounds=_ROUNDS, warm_up=_WARM_UP, calls=len(queries))
        spreads = measure_by_turns(probes, stage.pinning, plan, screen.step)
    return EndToEnd(middle(spreads["vector"]), middle(spreads["text"]), exactness(answers, K))


def _answered(http: RawHttp, query: Query, name: str) -> list[str]:
    hits = json.loads(http.exchange(query.by_vector()).body)["hits"]
    return [str(hit[name]) for hit in hits]


def _cycled(requests: Sequence[bytes], count: int) -> list[bytes]:
    rounds = repeat(requests)
    return list(islice((request for requests in rounds for request in requests), count))


def report_end_to_end(section: Section, found: EndToEnd) -> None:
    """The times through the sidecar."""
    where = FREE.describe()
    section.add_spread(f"{K} best by vector, through the sidecar", found.by_vector, "ms", placement=where)
    section.add_spread(f"{K} best by text, through the sidecar", found.by_text, "ms", placement=where)


STEPS = _ROUNDS
"""How many steps `measure_end_to_end` shows."""
