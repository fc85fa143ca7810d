"""Problems: every error the engine can raise has a status, and every code of ours is one that a client knows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from agentmemory.errors import ProblemError, problem_from
from agentmemory_engine.embedding import EmbeddingUnavailable
from agentmemory_engine.errors import (
    BarrierTimeout,
    DocumentExpired,
    InvalidAgentId,
    JournalFull,
    KeyReused,
    MemoryFault,
    NoDeadLetter,
    NoSnapshot,
    PositionLost,
    RecallUnavailable,
    SchemaMismatch,
    ShardClosed,
    StoreUnavailable,
    TooLarge,
    Unavailable,
    VersionConflict,
    WrongEvictionPolicy,
)
from agentmemory_sidecar.errors import Refusal
from agentmemory_sidecar.problems import PROBLEMS, status_of_fault


def descendants(kind: type[MemoryFault]) -> Iterator[type[MemoryFault]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InvalidAgentId, 422),
        (KeyReused, 422),
        (TooLarge, 413),
        (DocumentExpired, 404),
        (NoSnapshot, 404),
        (NoDeadLetter, 404),
        (VersionConflict, 412),
        (PositionLost, 410),
        (BarrierTimeout, 504),
        (StoreUnavailable, 503),
        (ShardClosed, 503),
        (JournalFull, 503),
        (RecallUnavailable, 503),
        (WrongEvictionPolicy, 503),
        (SchemaMismatch, 503),
        (EmbeddingUnavailable, 503),
    ],
)
def test_the_status_of_an_error(kind: type[MemoryFault], status: int) -> None:
    assert status_of_fault(kind) == status


def test_every_error_that_can_pass_tells_how_long_to_wait() -> None:
    for kind in descendants(MemoryFault):
        if status_of_fault(kind) == 503:
            assert issubclass(kind, Unavailable) and kind.retry_after >= 1


def test_the_client_has_a_type_for_everything_that_reaches_it() -> None:
    refusals = [(kind.code, kind.status) for kind in Refusal.__subclasses__()]
    faults = [(kind.code, status_of_fault(kind)) for kind in descendants(MemoryFault) if status_of_fault(kind) != 500]
    for code, status in refusals + faults:
        body = json.dumps({"type": PROBLEMS + code, "status": status}).encode()
        error = problem_from(status, body)
        assert error is not None and type(error) is not ProblemError, code
