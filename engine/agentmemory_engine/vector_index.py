"""The approximate indexes of vectors: made and dropped by the owner of the schema, one for each model that covers all.

A vector's column holds several models, so that an index is one of an expression of fixed length, and of one model only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from agentmemory_engine.postgres import identifier
from agentmemory_engine.settings import Settings

logger = logging.getLogger(__name__)

COVERED = 1280
"""Dimensions of the largest vector that a key of Postgres can cover; a larger one stands in a column of its own."""

_THERE = """
SELECT c.relname AS name, i.indisvalid AS valid, coalesce(c.reloptions, '{}') AS options
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass($1) AND a.amname = 'hnsw'
"""


def column_of(dimensions: int) -> str:
    """The column that vectors of this length stand in."""
    return "embedding" if dimensions <= COVERED else "wide"


def index_name(model: int) -> str:
    """The index of a model's vectors."""
    return f"event_embeddings_hnsw_{model}"


@dataclass(frozen=True)
class Step:
    """A statement that brings the indexes nearer to what is declared, and what it does."""

    statement: str
    what: str


async def plan_indexes(owner: asyncpg.Connection[Any], settings: Settings) -> list[Step]:
    """What there is to do, in order; nothing when all is as declared. Reads only, as whoever may read the schema."""
    table = f"{identifier(settings.keys.schema)}.event_embeddings"
    there = {row["name"]: row for row in await owner.fetch(_THERE, table)}
    wanted = await _wanted(owner, settings)
    options = {f"m={settings.index_m}", f"ef_construction={settings.index_ef_construction}"}
    good = {name for name, row in there.items() if row["valid"] and set(row["options"]) == options} & set(wanted)
    schema = identifier(settings.keys.schema)
    steps = [
        Step(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{identifier(name)}", f"drops the index {name}")
        for name in sorted(set(there) - good)
    ]
    # Where nothing would be held up, it is made at once.
    way = "CONCURRENTLY" if await owner.fetchval(f"SELECT EXISTS (SELECT FROM {table})") else ""
    for name in sorted(set(wanted) - good):
        model, dimensions = wanted[name]
        steps.append(
            Step(
                f"CREATE INDEX {way} {name} ON {table} USING hnsw "
                f"(({column_of(dimensions)}::halfvec({dimensions})) halfvec_cosine_ops) "
                f"WITH (m = {settings.index_m}, ef_construction = {settings.index_ef_construction}) "
                f"WHERE model = {model}",
                f"makes the index {name}",
            )
        )
    return steps


async def _wanted(owner: asyncpg.Connection[Any], settings: Settings) -> dict[str, tuple[int, int]]:
    """Model and dimensions by the name of the index. While a model is filled it has none: that would cost the more."""
    if settings.index != "HNSW":
        return {}
    rows = await owner.fetch(
        f"SELECT model, dimensions FROM {identifier(settings.keys.schema)}.embedding_models"
        " WHERE kept AND completed_at IS NOT NULL"
    )
    return {index_name(row["model"]): (row["model"], row["dimensions"]) for row in rows}


async def tend_indexes(connection: asyncpg.Connection[Any], settings: Settings) -> list[str]:
    """Make and drop indexes until they are as declared, as an administrator; answer what was done.

    A large index takes minutes, and writers go on meanwhile. One that was cut off is made anew. While another process
    is at it, nothing is done here.
    """
    done = []
    async with _alone(connection, settings) as alone:
        for step in await plan_indexes(connection, settings) if alone else []:
            logger.info("postgres: %s", step.what)
            await connection.execute(step.statement)
            done.append(step.what)
    return done


@asynccontextmanager
async def _alone(connection: asyncpg.Connection[Any], settings: Settings) -> AsyncIterator[bool]:
    """Act as the owner; whether nobody else is at it. Not in a transaction, which an index of this kind forbids."""
    key = f"{settings.keys.schema}/indexes"
    if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key):
        yield False
        return
    try:
        await connection.execute(f"SET ROLE {identifier(settings.keys.schema + '_owner')}")
        # Its share of /dev/shm may be small, and other work goes on beside it.
        await connection.execute("SET max_parallel_maintenance_workers = 0")
        yield True
    finally:
        if not connection.is_closed():
            await connection.execute("RESET ROLE; RESET max_parallel_maintenance_workers")
            await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)
