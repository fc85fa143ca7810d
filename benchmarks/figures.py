"""Figures: what was measured, what was to be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.latency import Spread


@dataclass(frozen=True)
class Target:
    """What is to be reached: at most `limit`, or at least that."""

    limit: float
    at_most: bool

    def met_by(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value <= self.limit if self.at_most else value >= self.limit

    def excess(self, value: float) -> float:
        """By which share of the limit a value misses it (of 0: by how much); negative where it has room to spare."""
        difference = value - self.limit if self.at_most else self.limit - value
        return difference / (self.limit or 1.0)


def at_most(limit: float) -> Target:
    """A ceiling; `limit` is not negative."""
    return Target(limit, True)


def at_least(limit: float) -> Target:
    """A floor; `limit` is positive."""
    return Target(limit, False)


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    `unit` is one of x, us, ms, s, /s, MB, share, count; times are held in seconds, sizes in bytes, shares from 0 to 1.
    `placement` says which process ran on which core; `rounds` are the values that `value` is the median of.
    """

    name: str
    value: float
    unit: str
    target: Target | None = None
    placement: str = ""
    detail: str = ""
    rounds: Sequence[float] = ()


@dataclass
class Section:
    """What was measured about one thing, and what a reader has to know to read it."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, value: float | Sequence[float], unit: str, target: Target | None = None, *,
        placement: str = "", detail: str = "",
    ) -> None:  # fmt: skip
        """A figure; of several values, one a round, it is their median."""
        rounds = () if isinstance(value, (int, float)) else tuple(value)
        middle = median(rounds) if rounds else float(value)  # type: ignore[arg-type]
        self.figures.append(Figure(name, middle, unit, target, placement, detail, rounds))

    def add_spread(self, name: str, spread: Spread, unit: str, *, placement: str = "", detail: str = "") -> None:
        """A figure of the p50, with the other percentiles as its detail."""
        tail = f"p95 {show_value(spread.p95, unit)}, p99 {show_value(spread.p99, unit)}"
        joined = f"{tail}; {detail}" if detail else tail
        self.figures.append(Figure(f"{name}, p50", spread.p50, unit, placement=placement, detail=joined))


def show_value(value: float, unit: str) -> str:
    """A value with its unit, with as many digits as mean something."""
    match unit:
        case "x":
            return f"{value:.2f}x" if value < 20 else f"{value:,.0f}x"
        case "us":
            return f"{value * 1e6:,.1f} us" if value < 1e-4 else f"{value * 1e6:,.0f} us"
        case "ms":
            return f"{value * 1e3:,.2f} ms"
        case "s":
            return f"{value:,.1f} s"
        case "/s":
            return f"{value:,.0f} /s"
        case "MB":
            return f"{value / 1e6:,.1f} MB"
        case "share":
            return f"{value:.3f}"
        case "count":
            return f"{value:,.0f}"
    raise ValueError(f"{unit!r} is not a unit of figures")


def show_target(figure: Figure) -> str:
    """What was to be reached; empty where nothing was."""
    if figure.target is None:
        return ""
    return f"{'≤' if figure.target.at_most else '≥'} {show_value(figure.target.limit, figure.unit)}"


def verdict(figure: Figure) -> str:
    """Whether it was reached, and by how much; empty where there is no target."""
    if figure.target is None:
        return ""
    excess = figure.target.excess(figure.value)
    if figure.target.met_by(figure.value):
        return f"met, {abs(excess):.0%} to spare" if figure.target.limit else "met"
    if not figure.target.limit:
        return f"missed by {show_value(excess, figure.unit)}"
    return f"missed by {excess:.0%}" if excess >= 0.01 else f"missed by {excess:.2%}"
