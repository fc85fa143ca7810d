"""Events: what a person sees in `kubectl describe`, each with an action and a reason."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from agentmemory_operator.conditions import CONSOLIDATION, PROGRESSING, READY, SIDECARS, Condition
from agentmemory_operator.kube import Kube, KubeError, Object
from agentmemory_operator.names import API_VERSION, GROUP, KIND

CONTROLLER = f"{GROUP}/operator"
_LONGEST_NOTE = 1024
_TOLD = {READY: "Observe", CONSOLIDATION: "Consolidate", SIDECARS: "Inject", PROGRESSING: "Reconcile"}
"""The conditions whose changes are Events, and the action in question; the others are told by Ready."""

EventType = Literal["Normal", "Warning"]


def compose(
    regarding: Object, *, reason: str, action: str, note: str, kind: EventType, instance: str, now: datetime, name: str
) -> Object:
    """An Event about an object. The same `name` again is the same Event."""
    metadata = regarding["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "type": kind,
        "reason": reason,
        "action": action,
        "note": note[:_LONGEST_NOTE] or reason,
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "regarding": {
            "apiVersion": regarding.get("apiVersion", API_VERSION),
            "kind": regarding.get("kind", KIND),
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }


def of_transitions(memory: Object, changed: Iterable[Condition], *, instance: str, now: datetime) -> list[Object]:
    """An Event for each condition that changed and is told by itself."""
    found = []
    for one in changed:
        action = _TOLD.get(one.type)
        if action is None or (one.type == PROGRESSING and one.reason in ("Settled", "Reconciling", "Blocked")):
            continue
        good = one.holds
        found.append(
            compose(
                memory, reason=one.reason, action=action, note=one.message, kind="Normal" if good else "Warning",
                instance=instance, now=now, name=_name(memory, one.type, one.reason, now.isoformat()),
            )
        )  # fmt: skip
    return found


def name_once(regarding: Object, reason: str) -> str:
    """A name for an Event that is told once an object, however often and by whomever it is found."""
    return _name(regarding, reason)


def _name(regarding: Object, *parts: str) -> str:
    digest = sha256("/".join((regarding["metadata"]["uid"], *parts)).encode()).hexdigest()[:16]
    return f"{regarding['metadata']['name'][:200]}.{digest}"


async def tell(kube: Kube, event: Object) -> None:
    """Make the Event; one that is there already, or a namespace that is going away, is no error. Raises KubeError."""
    try:
        await kube.create(event)
    except KubeError as error:
        if error.status not in (404, 409) and not (error.status == 403 and "being terminated" in str(error)):
            raise
