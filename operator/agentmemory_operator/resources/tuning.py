"""Settings of Postgres from the memory and the disk it has: pure arithmetic."""

from __future__ import annotations

from typing import Any

from agentmemory_operator.spec import bytes_of

MIB = 1 << 20
ASSUMED_MEMORY = 512 * MIB
"""What a Postgres without a limit is set up for."""
_RESERVED_CONNECTIONS = 20
"""Beside a pooler's: the operator's, an administrator's, exporters'."""


def memory_limit(resources: dict[str, Any]) -> int | None:
    """The memory that a container may take, in bytes. None where nothing limits it."""
    limit = resources.get("limits", {}).get("memory")
    return None if limit is None else bytes_of(str(limit))


def connections(limit: int | None, *, pooled: int = 0) -> int:
    """How many connections Postgres takes: more with more memory, and never less than a pooler's `pooled` ones."""
    memory = limit or ASSUMED_MEMORY
    by_memory = 100 if memory < 2048 * MIB else 200 if memory < 8192 * MIB else 400
    return max(by_memory, pooled + _RESERVED_CONNECTIONS)


def by_memory(limit: int | None, *, connections: int) -> dict[str, str]:
    """A quarter is Postgres' own, the system caches files in most of the rest."""
    memory = limit or ASSUMED_MEMORY
    return {
        "shared_buffers": _megabytes(memory // 4, 16, 16_384),
        "effective_cache_size": _megabytes(memory // 4 * 3, 32, 1 << 20),
        "maintenance_work_mem": _megabytes(memory // 16, 16, 1024),
        "work_mem": _megabytes(memory // 4 // connections, 4, 64),
    }


def by_storage(size: int) -> dict[str, str]:
    """Fewer checkpoints write less, as long as the log leaves the disk to the data. `size` is in bytes."""
    most = min(max(size // 10 // MIB, 256), 8192)
    return {"max_wal_size": f"{most}MB", "min_wal_size": f"{max(most // 4, 80)}MB"}


def shared_memory(limit: int | None) -> str:
    """The size of /dev/shm, where parallel queries and index builds meet."""
    return f"{max((limit or ASSUMED_MEMORY) // 4 // MIB, 64)}Mi"


def _megabytes(value: int, least: int, most: int) -> str:
    return f"{min(max(value // MIB, least), most)}MB"
