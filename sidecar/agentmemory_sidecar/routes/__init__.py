"""The routes of the API, one module a noun."""

from __future__ import annotations

from agentmemory_sidecar.operations import Operation
from agentmemory_sidecar.routes import (
    channels,
    consolidation,
    dead_letters,
    distillations,
    embedding,
    erasure,
    events,
    export,
    knowledge,
    recall,
    sessions,
    turns,
    working_memory,
)

OPERATIONS: tuple[Operation, ...] = (
    *working_memory.OPERATIONS,
    *turns.OPERATIONS,
    *events.OPERATIONS,
    *sessions.OPERATIONS,
    *knowledge.OPERATIONS,
    *recall.OPERATIONS,
    *consolidation.OPERATIONS,
    *embedding.OPERATIONS,
    *dead_letters.OPERATIONS,
    *distillations.OPERATIONS,
    *export.OPERATIONS,
    *erasure.OPERATIONS,
    *channels.OPERATIONS,
)
