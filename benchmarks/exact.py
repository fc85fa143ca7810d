"""The exact ranking that recall is held against: every vector compared, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ready_vectors import Matrix

_SAME = 1e-6
"""Similarities this near are equal: float32 sums come out so in another order, and equal texts have equal vectors."""


@dataclass(frozen=True)
class Exactness:
    """Over some queries: how many of the best k were found, and the share of answers with less than there could be."""

    recall: float
    short: float


def similarities(vectors: Matrix, owners: Sequence[str], query: Matrix) -> dict[str, float]:
    """The best similarity of each event; `owners` names the event of each row, as a long one has several."""
    best: dict[str, float] = {}
    for owner, value in zip(owners, (vectors @ query).tolist(), strict=True):
        best[owner] = max(value, best.get(owner, -2.0))
    return best


def found_of_best(answered: Sequence[str], ranked: Mapping[str, float], k: int) -> float:
    """The share of the k best that was answered; one that is as good as the k-th best is as right as that.

    Raises ValueError when there is nothing to find.
    """
    wanted = min(k, len(ranked))
    if wanted == 0:
        raise ValueError("an agent without vectors has no best events")
    worst = float(np.partition(np.fromiter(ranked.values(), dtype=np.float64), -wanted)[-wanted])
    right = {name for name in answered[:k] if ranked.get(name, -2.0) >= worst - _SAME}
    return len(right) / wanted


def exactness(answers: Sequence[tuple[Sequence[str], Mapping[str, float]]], k: int) -> Exactness:
    """Of pairs of an answer and the similarities of all that could have been answered."""
    recalls = [found_of_best(answered, ranked, k) for answered, ranked in answers]
    short = [len(answered) < min(k, len(ranked)) for answered, ranked in answers]
    return Exactness(sum(recalls) / len(recalls), sum(short) / len(short))
