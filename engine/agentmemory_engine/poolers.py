"""Transaction poolers: whether statements that a connection has prepared are still there in its next transaction."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg


async def keeps_statements(connection: asyncpg.Connection[Any]) -> bool:
    """Whether a named statement stays: with no pooler, or one that keeps track of names, as PgBouncer 1.21 can.

    The connection is one without a cache of statements, so that nothing with a name is left behind at the server.
    """
    async with connection.transaction():
        if await connection.fetchval("SELECT pg_backend_pid()") == connection.get_server_pid():
            return True
        name = f"agentmemory_{uuid4().hex}"
        statement = await connection.prepare("SELECT 1", name=name)
        # A pooler that keeps track has given it a name of its own.
        known = await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name = $1", name)
        # Let go of only now, and closed with the next command: the server may be another's after this transaction.
        del statement
        await connection.fetchval("SELECT 1")
        return not known
