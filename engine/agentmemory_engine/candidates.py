"""All events of an agent, scored for one query, and the best of them: pure, over arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from agentmemory_engine import ranking
from agentmemory_engine.moments import Life, find_spans
from agentmemory_engine.postings import Columns, Floats, Postings
from agentmemory_engine.terms import terms_of

if TYPE_CHECKING:
    from agentmemory_engine.events import Filter
    from agentmemory_engine.recall import RecallQuery
    from agentmemory_engine.semantic import Strategy

Distances = tuple[bytes, bytes]
"""Of vectors: the ids of their events, 16 bytes each, and cosine distances, big-endian floats of 4 bytes."""


@dataclass(frozen=True)
class Candidate:
    """An event in the ranking, and what it scored; each part is from 0 to 1."""

    id: UUID
    score: float
    scores: dict[str, float]


def rank(
    index: Postings, query: RecallQuery, strategy: Strategy, distances: Distances | None, *,
    with_metadata: bytes | None, now: datetime, count: int,
) -> list[Candidate]:  # fmt: skip
    """The best `count` events that pass the filter, best first.

    `with_metadata` are the ids of the events whose metadata passes; None where all do.
    """
    columns = index.columns
    at = np.frombuffer(columns.at, np.float64)
    if not len(at):
        return []
    parts: dict[str, Floats] = {}
    matches = np.zeros(len(at), np.bool_)
    if distances is not None:
        parts["semantic"], matches = _similarities(index, distances)
    if strategy != "semantic":
        parts["keyword"], holds = index.scores(terms_of(query.query or ""))
        # By keyword alone, a hit holds one; with meaning beside it, the answer to what holds one is a hit, too.
        matches |= holds if strategy == "keyword" else parts["keyword"] > 0
    if strategy == "hybrid" and query.named_times:
        spans = find_spans(query.query or "", Life.between(at.min(), at.max(), now, query.zone))
        if (near := ranking.nearness(at, spans)) is not None:
            parts["time"] = near
    scores = ranking.fuse(parts.get("semantic"), parts.get("keyword"), parts.get("time"))
    if query.recency is not None:
        parts["recency"] = ranking.recency(at, now.timestamp(), query.recency.half_life)
        scores = (1 - query.recency.weight) * scores + query.recency.weight * parts["recency"]
    # What does not match at all is no hit for being new, or of the time that is named.
    allowed = matches & _allowed(columns, query.filter, None if with_metadata is None else index.find(with_metadata))
    return [
        Candidate(
            UUID(bytes=bytes(columns.ids[16 * place : 16 * place + 16])), _shown(scores[place]),
            {name: _shown(part[place]) for name, part in parts.items()},
        )
        for place in ranking.best(scores, allowed, count, query.min_score)
    ]  # fmt: skip


def _shown(score: np.float64) -> float:
    return max(0.0, min(1.0, float(score)))


def _similarities(index: Postings, distances: Distances) -> tuple[Floats, NDArray[np.bool_]]:
    """Of each event, the cosine of its nearest vector, and whether it has one; 0 where there is none."""
    found = np.full(len(index), -np.inf)
    places = index.find(distances[0])
    similar = 1.0 - np.frombuffer(distances[1], ">f4").astype(np.float64)
    known = places >= 0
    np.maximum.at(found, places[known], similar[known])
    has = found > -np.inf
    return np.where(has, found, 0.0), has


def _allowed(columns: Columns, wanted: Filter, places: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    allowed = np.ones(len(columns), np.bool_)
    at = np.frombuffer(columns.at, np.float64)
    if wanted.since is not None:
        allowed &= at >= wanted.since.timestamp()
    if wanted.until is not None:
        allowed &= at < wanted.until.timestamp()
    if wanted.types is not None:
        allowed &= _one_of(columns.types, [columns.type_names.find(name) for name in wanted.types])
    if wanted.role is not None:
        allowed &= _one_of(columns.roles, [columns.role_names.find(wanted.role)])
    if wanted.session is not None:
        allowed &= _one_of(columns.sessions, [columns.session_names.find(wanted.session)])
    if places is not None:
        with_metadata = np.zeros(len(columns), np.bool_)
        with_metadata[places[places >= 0]] = True
        allowed &= with_metadata
    return allowed


def _one_of(column: Sequence[int], numbers: Sequence[int]) -> NDArray[np.bool_]:
    return np.isin(np.frombuffer(column, np.uint32), [number for number in numbers if number >= 0])  # type: ignore[call-overload]
