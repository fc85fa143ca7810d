"""The step that looks at a memory as its sidecars see it: with their login, through their way to Postgres."""

from __future__ import annotations

from typing import Any

from agentmemory_engine.answers import Status
from agentmemory_operator import conditions
from agentmemory_operator.errors import Blocked, Waiting
from agentmemory_operator.logins import current
from agentmemory_operator.sight import Sight
from agentmemory_operator.work import Work, stamp

_DOUBT_EVERY = 60.0
_SOON = 15.0
"""Seconds until the next look while entries are pending, or a new model has not come to everything."""
_ACCEPTED = {
    "Hybrid": "Both stores take the sidecars' logins.",
    "Redis": "Redis takes the sidecars' login.",
    "Postgres": "Postgres takes the sidecars' login.",
}
_WITHOUT_JOURNAL = {
    "Redis": "Mode Redis has no journal: an event stays where it was acknowledged.",
    "Postgres": "Mode Postgres has no journal: an event is in Postgres when it is acknowledged.",
}


async def observe(work: Work) -> None:
    """Find out what is pending and for how long, and whether the sidecars' logins work. Raises OperatorFault."""
    if not work.is_located or not work.logins:
        raise Waiting("StoresUnknown", "The stores cannot be asked: where they are, or their logins, is not known yet.")
    try:
        async with Sight(work, current(work.logins, work.stores)) as sight:
            status = await sight.status()
            reasons = await sight.check()
    except Blocked as fault:
        # Where the schema is ours, it is Redis that is another's, and no sidecar serves anything.
        if "schema" in work.serving:
            work.say(conditions.REDIS, "False", fault.reason, str(fault))
        raise
    work.status["embedding"] = embedding_of(status)
    if "next" in work.status["embedding"]:
        work.soon(_SOON)
    _judge_logins(work, reasons)
    _judge_lag(work, status, reasons)


def _judge_logins(work: Work, reasons: dict[str, str]) -> None:
    """Whether the stores take the sidecars' logins, where they answer at all."""
    refused = {part: reasons[part] for part in work.stores if part in work.serving and part in reasons}
    if not {*work.stores} <= work.serving:
        work.say(conditions.CREDENTIALS, "Unknown", "WaitingForStores", "The stores are not ready.")
    elif refused:
        _doubt_logins(work)
        part, reason = next(iter(refused.items()))
        work.say(conditions.CREDENTIALS, "False", "LoginNotAccepted", f"{part}, asked as a sidecar: {reason}")
        work.soon(5.0)
    else:
        work.say(conditions.CREDENTIALS, "True", "Accepted", _ACCEPTED[work.memory.spec.mode])


def _doubt_logins(work: Work) -> None:
    """Have the logins set again at the next look, for they may have been changed by hand: now and then, since a store
    in trouble of another kind gives no better answer for it."""
    now, last = work.clock(), work.memo.doubted_at
    if last is None or (now - last).total_seconds() >= _DOUBT_EVERY:
        work.memo.doubted_at = now
        work.memo.redis_logins = work.memo.postgres_logins = ()


def _judge_lag(work: Work, status: Status, reasons: dict[str, str]) -> None:
    """ConsolidationHealthy, and the figures. What cannot be seen is left out, never repeated from before."""
    figures = figures_of(status, work.settings.ttl)
    figures["observedAt"] = stamp(work.clock())
    work.status["consolidation"] = figures
    work.lag, work.pending = status.lag, status.pending
    if without := _WITHOUT_JOURNAL.get(work.memory.spec.mode):
        # Whether it answers or not: nothing can be behind.
        work.say(conditions.CONSOLIDATION, "True", "NotUsed", without)
        return
    if status.lag is None or status.pending is None:
        why = reasons.get("redis", "Redis gives no answer")
        work.say(conditions.CONSOLIDATION, "Unknown", "JournalUnseen", f"What is pending cannot be seen; {why}")
        return
    if status.dead_letters is None:
        why = reasons.get("postgres", "Postgres gives no answer")
        work.say(conditions.CONSOLIDATION, "Unknown", "PostgresUnseen", f"Dead letters cannot be seen; {why}")
        return
    work.found[conditions.CONSOLIDATION] = judge(status, work)
    if status.pending:
        work.soon(_SOON)


def judge(status: Status, work: Work) -> conditions.Condition:
    """What lag and dead letters mean."""
    alerts = work.memory.spec.consolidation.alerts
    lag, ratio = status.lag or 0.0, (status.lag or 0.0) / work.settings.ttl
    told = f"The oldest of {status.pending} pending entries is {lag:.0f} s old, {ratio:.0%} of the TTL"
    verdict: tuple[conditions.Verdict, str, str] = ("True", "KeepingUp", "Entries reach Postgres in time.")
    if ratio >= alerts.critical_ratio:
        verdict = ("False", "LagCritical", f"{told} (critical at {alerts.critical_ratio:.0%}). Look at the sidecars.")
    elif ratio >= alerts.warning_ratio:
        verdict = ("False", "LagWarning", f"{told} (warning at {alerts.warning_ratio:.0%}). Look at the sidecars.")
    elif status.dead_letters:
        verdict = (
            "False", "DeadLetters", f"Postgres refused {status.dead_letters} events for their own sake; they are kept. "
            "List and replay them through GET /v1/dead-letters of a sidecar.",
        )  # fmt: skip
    return conditions.Condition(conditions.CONSOLIDATION, *verdict)


def embedding_of(status: Status) -> dict[str, Any]:
    """Which model recall goes by, and how far the next one is; the newest, where there are several."""
    found: dict[str, Any] = {}
    for model in status.models or []:
        if model.current:
            found |= {"model": model.name, "since": stamp(model.switched_at) if model.switched_at else None}
        elif model.kept and not model.complete:
            found |= {"next": model.name, "backFilled": model.done, "total": model.total}
    return found


def figures_of(status: Status, ttl: float) -> dict[str, Any]:
    """The figures as the status of the resource shows them: seconds to a tenth, the ratio to a thousandth."""
    found: dict[str, Any] = {}
    if status.lag is not None:
        found |= {"lagSeconds": round(status.lag, 1), "lagRatio": round(status.lag / ttl, 3)}
    if status.pending is not None:
        found["pending"] = status.pending
    if status.dead_letters is not None:
        found["deadLetters"] = status.dead_letters
    return found
