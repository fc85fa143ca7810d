"""How long things take: times of single calls, their percentiles, and medians over rounds. Times are in seconds."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Spread:
    """Percentiles of the times of `count` calls."""

    p50: float
    p95: float
    p99: float
    count: int


def percentile(ranked: Sequence[float], share: float) -> float:
    """The least value that `share` (0 to 1) of all values do not exceed; `ranked` ascends.

    Raises ValueError when there is none.
    """
    if not ranked:
        raise ValueError("there is no percentile of nothing")
    # A share such as 0.07 of 100 is 7.000000000000001 in binary: that must not become the eighth.
    return ranked[max(0, math.ceil(round(share * len(ranked), 9)) - 1)]


def spread_of(times: Iterable[float]) -> Spread:
    """The percentiles of some times. Raises ValueError when there are none."""
    ranked = sorted(times)
    return Spread(percentile(ranked, 0.5), percentile(ranked, 0.95), percentile(ranked, 0.99), len(ranked))


def middle(rounds: Sequence[Spread]) -> Spread:
    """The median over rounds of each percentile; all their calls counted. Raises ValueError when there are none."""
    if not rounds:
        raise ValueError("there is no median of no rounds")
    return Spread(
        median(one.p50 for one in rounds),
        median(one.p95 for one in rounds),
        median(one.p99 for one in rounds),
        sum(one.count for one in rounds),
    )


def ratios(above: Sequence[Spread], below: Sequence[Spread]) -> list[float]:
    """How many times the p50 of `below` that of `above` is, round by round. Raises ValueError for unequal numbers."""
    return [one.p50 / other.p50 for one, other in zip(above, below, strict=True)]


def time_each(exchange: Callable[[bytes], object], requests: Iterable[bytes]) -> list[float]:
    """The time of each request, one after the other. The collector rests, since its pauses are the client's own."""
    times = []
    gc.disable()
    try:
        for request in requests:
            started = perf_counter()
            exchange(request)
            times.append(perf_counter() - started)
    finally:
        gc.enable()
    return times
