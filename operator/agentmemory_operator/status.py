"""The status of an AgentMemory: what one reconciliation found, as it is written. Pure."""

from __future__ import annotations

from typing import Any

from agentmemory_operator import conditions
from agentmemory_operator.changes import facts_of, places_of
from agentmemory_operator.spec import STORES
from agentmemory_operator.work import Work, stamp

_UNSEEN: dict[str, Any] = {
    "redis": {"version": None, "persistence": "Unknown"},
    "postgres": {"version": None, "vectorVersion": None},
    "consolidation": dict.fromkeys(("lagSeconds", "lagRatio", "pending", "deadLetters")),
    "embedding": dict.fromkeys(("model", "since", "next", "backFilled", "total")),
}
"""What stands in the status of what could not be seen: nothing, rather than what was seen before."""


def compose(work: Work) -> dict[str, Any]:
    """A merge patch of the status."""
    old = work.memory.raw.get("status") or {}
    found = work.found
    ready = found[conditions.READY]
    patch: dict[str, Any] = {
        "observedGeneration": work.memory.generation,
        "phase": conditions.phase_of(ready, found.get(conditions.PROGRESSING), found.get(conditions.PAUSED)),
        "conditions": conditions.merge(
            old.get("conditions", []), found.values(), generation=work.memory.generation, now=stamp(work.clock())
        ),
    }
    for member in ("redis", "postgres", "schema", "consolidation", "embedding", "sidecars", "credentials", "drain"):
        unseen = {} if member in STORES and member not in work.stores else _UNSEEN.get(member, {})
        value = unseen | work.status.get(member, {})
        if value:
            patch[member] = value
    if not work.refused:
        patch["applied"] = _applied(work)
    return patch


def _applied(work: Work) -> dict[str, Any]:
    """Against which later changes are checked. A store that never served holds nothing yet, and may still move."""
    places = {store: place for store, place in places_of(work.memory).items() if place and store in work.serving}
    served = work.identity is not None and {*work.stores} <= work.serving
    identity = {"identity": work.identity} if served else {}
    return facts_of(work.memory) | ({"external": places} if places else {}) | identity


def differs(old: dict[str, Any], patch: dict[str, Any]) -> bool:
    """Whether writing the patch would change anything worth a write: the time of looking alone is not."""
    return any(_differs(old.get(key), value) for key, value in patch.items() if key != "observedAt")


def _differs(old: Any, new: Any) -> bool:
    if isinstance(new, dict):
        return differs(old if isinstance(old, dict) else {}, new)
    return bool(old != new)
