"""The baseline: a bridge that inserts each turn by itself, its vector written as text, under an HNSW index."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Self

import asyncpg

from benchmarks.conversation import text_of
from benchmarks.ready_vectors import Matrix, unit_vectors
from benchmarks.work import Work, measured

_CREATE = """
CREATE SCHEMA inline_index;
CREATE TABLE inline_index.agent_memory (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_id    text NOT NULL,
    role        text NOT NULL,
    content     text NOT NULL,
    embedding   public.vector(384),
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON inline_index.agent_memory (agent_id, created_at);
"""
_INDEX = "CREATE INDEX ON inline_index.agent_memory USING hnsw (embedding public.vector_cosine_ops)"
_FILL = """
INSERT INTO inline_index.agent_memory (agent_id, role, content, embedding)
SELECT agent_id, 'user', content, embedding::text::public.vector
FROM unnest($1::text[], $2::text[], $3::text[]) AS t (agent_id, content, embedding)
"""
_INSERT = """
INSERT INTO inline_index.agent_memory (agent_id, role, content, embedding)
VALUES ($1, 'user', $2, $3::text::public.vector)
"""
_PAGE = 500


def to_text(row: Matrix) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(str, row.tolist())) + "]"


class InlineIndex:
    """A table of turns with their vectors, and its index. An async context manager that owns the connection."""

    def __init__(self, admin: asyncpg.Connection[Any], agents: int, text_length: int, seed: int) -> None:
        self._admin = admin
        self._agents = agents
        self._text_length = text_length
        self._seed = seed
        self._pages = 0

    async def __aenter__(self) -> Self:
        await self._admin.execute(_CREATE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.execute("DROP SCHEMA inline_index CASCADE")
        await self._admin.close()

    async def fill(self, rows: int) -> None:
        """Rows before the index is there, which is the quick way, and then the index."""
        for start in range(0, rows, _PAGE):
            agents, texts, vectors = self._turns(min(_PAGE, rows - start))
            await self._admin.execute(_FILL, agents, texts, [to_text(row) for row in vectors])
        await self._admin.execute(_INDEX)

    async def insert(self, count: int, processes: Mapping[str, int]) -> Work:
        """Insert turns one by one; what that took here and in `processes`."""
        agents, texts, vectors = self._turns(count)
        with measured(count, processes) as work:
            for agent, text, vector in zip(agents, texts, vectors, strict=True):
                await self._admin.execute(_INSERT, agent, text, to_text(vector))
        return work

    def _turns(self, count: int) -> tuple[list[str], list[str], Matrix]:
        self._pages += 1
        source = random.Random(f"{self._seed}/{self._pages}")
        agents = [f"agent-{source.randrange(self._agents)}" for _ in range(count)]
        return (
            agents,
            [text_of(self._text_length, source) for _ in agents],
            unit_vectors(count, self._seed, self._pages),
        )
