"""Conditions of an AgentMemory: what each step found, and what is said of the whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from agentmemory_operator.spec import STORES

Verdict = Literal["True", "False", "Unknown"]

READY = "Ready"
REDIS = "RedisReady"
POSTGRES = "PostgresReady"
SCHEMA = "SchemaReady"
CREDENTIALS = "CredentialsReady"
CONSOLIDATION = "ConsolidationHealthy"
SIDECARS = "SidecarsInjected"
PROGRESSING = "Progressing"
PAUSED = "Paused"

NEEDED = (REDIS, POSTGRES, SCHEMA, CREDENTIALS)
"""What has to be True for an event written now to become durable and recallable, where the mode uses both stores."""
_STORE_OF = {REDIS: "redis", POSTGRES: "postgres", SCHEMA: "postgres"}

_ORDER = (READY, *NEEDED, CONSOLIDATION, SIDECARS, PROGRESSING, PAUSED)
LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class Condition:
    """One finding. `reason` is a CamelCase word; `message` says what to do where something is to be done."""

    type: str
    status: Verdict
    reason: str
    message: str = ""

    @property
    def holds(self) -> bool:
        return self.status == "True"


def needed(stores: Collection[str]) -> tuple[str, ...]:
    """What is needed with these stores: nothing is said of one that the mode does not use."""
    return tuple(kind for kind in NEEDED if _STORE_OF.get(kind) in (None, *stores))


def summarize(found: dict[str, Condition], stores: Collection[str] = STORES) -> Condition:
    """Ready: True when all that is needed is; else the first reason why not. Unknown never counts as True."""
    for verdict in ("False", "Unknown"):
        for name in needed(stores):
            one = found.get(name) or Condition(name, "Unknown", "NotObserved", "It was not looked at yet.")
            if one.status == verdict:
                return Condition(READY, one.status, one.reason, f"{name}: {one.message}".removesuffix(": "))
    lagging = found.get(CONSOLIDATION)
    if lagging is not None and lagging.reason == "LagCritical":
        return Condition(READY, "False", lagging.reason, lagging.message)
    said = "An event written now becomes durable and recallable."
    if "postgres" not in stores:
        said = "An event written now is recallable, and as durable as Redis is: RedisReady says how it persists."
    return Condition(READY, "True", "AsDeclared", said)


def phase_of(ready: Condition, progressing: Condition | None, paused: Condition | None) -> str:
    """One word for the printer column."""
    if paused is not None and paused.holds:
        return "Paused"
    if ready.holds:
        return "Ready"
    if progressing is not None and progressing.holds:
        return "Progressing"
    return "Degraded" if ready.status == "False" else "Unknown"


def merge(
    old: Iterable[dict[str, Any]], new: Iterable[Condition], *, generation: int, now: str
) -> list[dict[str, Any]]:
    """Conditions as they are stored: a time of transition is kept as long as the status stays.

    `now` is an RFC 3339 time. The same findings give back equal entries, so that nothing has to be written.
    """
    before = {one.get("type"): one for one in old}
    merged = []
    for one in sorted(new, key=lambda condition: _ORDER.index(condition.type)):
        last = before.get(one.type, {})
        same = last.get("status") == one.status
        merged.append({
            "type": one.type,
            "status": one.status,
            "reason": one.reason,
            "message": one.message[:LONGEST_MESSAGE],
            "lastTransitionTime": last["lastTransitionTime"] if same else now,
            "observedGeneration": generation,
        })  # fmt: skip
    return merged


def transitions(old: Iterable[dict[str, Any]], new: Iterable[Condition]) -> list[Condition]:
    """The findings whose status or reason is another one than before: what an Event is worth."""
    before = {one.get("type"): (one.get("status"), one.get("reason")) for one in old}
    return [one for one in new if before.get(one.type) != (one.status, one.reason)]
