"""Which mode fits: what rules each out, what speaks for it, and what to mind where it is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from agentmemory.advice import figures
from agentmemory.advice.costs import Costs, costs_of, embedding_cores, recall_seconds
from agentmemory.advice.quantities import write_bytes, write_seconds
from agentmemory.advice.workload import DAY, Workload

Mode = Literal["Hybrid", "Redis", "Postgres"]
_SHORT_HISTORY = 7 * DAY


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be said of one mode. With `against` it does not fit."""

    mode: Mode
    fits: bool
    against: list[str]
    reasons: list[str]
    costs: Costs


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The mode that fits best, why, and what to mind; `verdicts` judges all of them, the chosen one first."""

    mode: Mode
    reasons: list[str]
    mind: list[str]
    workload: Workload
    verdicts: list[Verdict]

    @property
    def costs(self) -> Costs:
        """Of the mode that is advised."""
        return self.verdicts[0].costs


def advise(workload: Workload) -> Advice:
    """The advice for a workload. Of the modes that fit, the one with the fewest stores to bring along."""
    verdicts = sorted((_judge(workload, mode) for mode in get_args(Mode)), key=lambda one: _rank(workload, one))
    best = verdicts[0]
    return Advice(
        mode=best.mode, reasons=best.reasons, mind=_mind(workload, best), workload=workload, verdicts=verdicts
    )


def _judge(workload: Workload, mode: Mode) -> Verdict:
    costs = costs_of(workload, mode)
    against: list[str] = []
    if mode == "Redis":
        against = _against_redis(workload, costs)
    elif mode == "Postgres":
        against = _against_postgres(workload)
    reasons = _reasons(workload, mode) + _standing(workload, mode)
    return Verdict(mode=mode, fits=not against, against=against, reasons=reasons, costs=costs)


def _rank(workload: Workload, verdict: Verdict) -> tuple[bool, int, int, int]:
    """The least is the best: it fits, brings few stores along, and then few stores at all."""
    needs = {"Hybrid": (True, True), "Redis": (True, False), "Postgres": (False, True)}[verdict.mode]
    new = (needs[0] and not workload.has_redis) + (needs[1] and not workload.has_postgres)
    preferred = ("Redis", "Postgres", "Hybrid") if workload.loss == "any" else ("Postgres", "Redis", "Hybrid")
    return not verdict.fits, new, sum(needs), preferred.index(verdict.mode)


def _against_redis(workload: Workload, costs: Costs) -> list[str]:
    found = []
    if workload.retention is None:
        found.append("Events are to be kept for good, and its history is bounded by memory.")
    elif workload.retention > _SHORT_HISTORY:
        found.append(
            f"Events are to be kept for {write_seconds(workload.retention)}; what expires in Redis is gone, so it is "
            f"advised for up to {write_seconds(_SHORT_HISTORY)}."
        )
    elif workload.kept_turns_of_each > figures.MOST_TURNS_KEPT:
        found.append(
            f"Each agent would have {workload.kept_turns_of_each:,.0f} turns to keep, and it keeps at most "
            f"{figures.MOST_TURNS_KEPT:,} of each."
        )
    if workload.loss == "none":
        found.append("Nothing acknowledged may be lost, and all there is would be one server's append-only file.")
    if costs.redis_memory > workload.redis_memory:
        found.append(
            f"It would hold {write_bytes(costs.redis_memory)} in memory, more than the "
            f"{write_bytes(workload.redis_memory)} that are allowed for it."
        )
    return found


def _against_postgres(workload: Workload) -> list[str]:
    found = []
    if workload.outage is not None:
        found.append("Agents are to go on while Postgres is down, and each turn would wait for it.")
    if workload.polls_a_second > figures.POSTGRES_READS:
        found.append(
            f"{workload.polls_a_second:,.0f} reads of documents a second are more than the {figures.POSTGRES_READS:,} "
            "up to which it is advised."
        )
    if workload.turns_a_second > figures.POSTGRES_TURNS:
        found.append(
            f"{workload.turns_a_second:,.0f} turns a second at the peak, each a transaction that waits for its commit, "
            f"are more than the {figures.POSTGRES_TURNS} up to which it is advised."
        )
    if workload.channels:
        found.append("Agents send each other messages, and channels are kept in Redis.")
    return found


def _standing(workload: Workload, mode: Mode) -> list[str]:
    has = {"Redis": workload.has_redis, "Postgres": workload.has_postgres}
    there = [store for store, is_there in has.items() if is_there and mode in ("Hybrid", store)]
    return [f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already."] if there else []


def _reasons(workload: Workload, mode: Mode) -> list[str]:
    match mode:
        case "Hybrid":
            outage = write_seconds(workload.outage or figures.PLANNED_OUTAGE)
            return [
                "Redis acknowledges turns in well under a millisecond; seconds later they are in Postgres, for good.",
                f"Agents go on while Postgres is down, for {outage} with the memory given here.",
            ]
        case "Redis":
            return [
                "One store in memory: the fastest, and nothing else to run.",
                f"A history of {write_seconds(workload.kept_days * DAY)} fits into its memory.",
            ]
        case "Postgres":
            return [
                "One store: a turn is in Postgres, and durable, when it is acknowledged.",
                f"{workload.polls_a_second:,.1f} reads and {workload.turns_a_second:,.1f} turns a second are well "
                "within what it serves without a cache.",
            ]


def _mind(workload: Workload, chosen: Verdict) -> list[str]:
    found = []
    if chosen.mode != "Postgres":
        found.append(_persistence(workload))
    if chosen.mode != "Redis" and workload.loss == "none":
        found.append(
            "Run Postgres with a synchronous standby: otherwise what it committed last may be lost with its machine."
        )
    if chosen.mode == "Hybrid" and chosen.costs.redis_memory > workload.redis_memory:
        found.append(
            f"Redis needs {write_bytes(chosen.costs.redis_memory)}, more than the "
            f"{write_bytes(workload.redis_memory)} that are allowed for it: plan for a shorter outage, smaller "
            "documents, or Redis Cluster."
        )
    if (
        chosen.mode != "Redis"
        and workload.recall == "semantic"
        and (seconds := recall_seconds(workload)) > figures.SLOW_RECALL
    ):
        found.append(
            f"Recall looks at all of an agent's events, about {workload.kept_events / workload.agents:,.0f}: expect "
            f"{seconds * 1000:,.0f} ms. A shorter retention makes it faster."
        )
    if (cores := embedding_cores(workload)) > 0.5:
        found.append(
            f"At the peak the local model keeps {cores:,.1f} cores busy, over all sidecars together; while it lags, "
            "events are found by their words. A provider with a server of its own takes that load."
        )
    if workload.retention is None:
        found.append("Events are kept for good: sizes here are those after a year.")
    return found


def _persistence(workload: Workload) -> str:
    match workload.loss:
        case "none":
            return (
                "Redis writes each turn to its disk before it is acknowledged (appendfsync always), which takes longer."
            )
        case "seconds":
            return (
                f"A crash of the machine that Redis runs on may take up to {figures.EVERYSEC_WINDOW} s of turns along "
                "(appendfsync everysec); they are detected and reported as lost."
            )
        case "any":
            return "Turns may be lost with the machine that Redis runs on (appendfsync everysec: up to 2 s of them)."
