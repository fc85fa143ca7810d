"""The identity record of a memory that has Redis alone: the mode, the number of shards and an id."""

from __future__ import annotations

from uuid import uuid4

from agentmemory_engine.errors import ForeignStore, SchemaMismatch

_MODE = "Redis"


def new_identity(shards: int) -> str:
    """A record for a new memory."""
    return f"{_MODE} {shards} {uuid4()}"


def parse_identity(record: str, shards: int) -> str:
    """The id in a record. Raises ForeignStore for that of another mode, SchemaMismatch for another number of shards."""
    mode, _, rest = record.partition(" ")
    count, _, identity = rest.partition(" ")
    if mode != _MODE or not identity:
        raise ForeignStore("Redis holds a memory of another mode under this name; give it its own Redis or name.")
    if count != str(shards):
        raise SchemaMismatch(
            f"The memory was made with {count} shards, and {shards} are configured; the number cannot change, set "
            f"`shards: {count}`."
        )
    return identity
