"""Probes: calls that are compared, by turns in every round, so that all of them meet the same disturbances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.latency import Spread, spread_of, time_each
from benchmarks.placement import Pinning, Placement
from benchmarks.sizes import Sizes


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Probe:
    """A call that is measured. `requests` makes so many of it beforehand; `settle` clears up after a round."""

    placement: Placement
    requests: Callable[[int], Sequence[bytes]]
    exchange: Callable[[bytes], object]
    settle: Callable[[], None] = _nothing


def measure_by_turns(
    probes: Mapping[str, Probe], pinning: Pinning, sizes: Sizes, step: Callable[[], None]
) -> dict[str, list[Spread]]:
    """The spread of each probe in each round: A B C, A B C, and so on."""
    spreads: dict[str, list[Spread]] = {name: [] for name in probes}
    with pinning.held():
        for _ in range(sizes.rounds):
            for name, probe in probes.items():
                spreads[name].append(_measure(probe, pinning, sizes))
            step()
    return spreads


def _measure(probe: Probe, pinning: Pinning, sizes: Sizes) -> Spread:
    requests = probe.requests(sizes.warm_up + sizes.calls)
    pinning.apply(probe.placement)
    time_each(probe.exchange, requests[: sizes.warm_up])
    spread = spread_of(time_each(probe.exchange, requests[sizes.warm_up :]))
    probe.settle()
    return spread
