"""Recall of one agent with a long past: what was imported, with the vectors that the local model made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agentmemory_engine.embedding import open_embedder
from agentmemory_engine.embedding.assets import DIMENSIONS
from benchmarks.exact import similarities
from benchmarks.figures import Section
from benchmarks.importing import AGENT
from benchmarks.ready_vectors import Matrix, from_vector
from benchmarks.recall import STEPS, K, Query, measure_end_to_end, report_end_to_end, time_in_postgres
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage


async def measure_long_agent(stage: Stage, texts: Sequence[str], sizes: Sizes, screen: Screen) -> Section:
    """Ask the imported agent for these texts."""
    screen.begin("Recall, one long agent", 2 + STEPS)
    queries = await _embedded(texts)
    past = await _Past.load(stage)
    before = await time_in_postgres(stage, queries)
    screen.step()
    await stage.vacuum()
    after = await time_in_postgres(stage, queries)
    screen.step()
    found = measure_end_to_end(stage, queries, past.ranked, "id", sizes, screen)
    section = Section(f"Semantic recall, one agent with {past.events:,} events ({len(past.owners):,} vectors)")
    section.add_spread(f"{K} best, in Postgres", after, "ms")
    section.add_spread(f"{K} best, in Postgres, as the import left the table", before, "ms")
    report_end_to_end(section, found)
    section.add(f"recall@{K} against float32", found.exactness.recall, "share")
    section.add("share of answers that are short", found.exactness.short, "share")
    section.notes.append(
        f"{len(queries)} queries. The model's vectors are halves already: the exact scan compares the same ones. The "
        "tables were vacuumed after the second line, as autovacuum does in time."
    )
    return section


async def _embedded(texts: Sequence[str]) -> list[Query]:
    embedder = open_embedder("Local", dimensions=DIMENSIONS)
    try:
        vectors = await embedder.embed(texts)
    finally:
        await embedder.close()
    return [Query(AGENT, text, from_vector(vector)) for text, vector in zip(texts, vectors, strict=True)]


class _Past:
    """All vectors of the agent."""

    def __init__(self, owners: list[str], vectors: Matrix) -> None:
        self.owners = owners
        self._vectors = vectors

    @classmethod
    async def load(cls, stage: Stage) -> _Past:
        postgres = stage.postgres()
        await postgres.open()
        try:
            statement = f'SELECT id, embedding FROM "{postgres.schema}".event_embeddings WHERE agent_id = $1'
            async with postgres.session() as session:
                rows = await session.fetch(statement, AGENT)
        finally:
            await postgres.close()
        return cls([str(row["id"]) for row in rows], np.stack([from_vector(row["embedding"]) for row in rows]))

    @property
    def events(self) -> int:
        return len(set(self.owners))

    def ranked(self, query: Query) -> Mapping[str, float]:
        return similarities(self._vectors, self.owners, query.vector)
