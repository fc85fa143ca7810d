"""Why a StatefulSet of one pod is not ready: pure decisions over what the cluster says of it."""

from __future__ import annotations

import re
from typing import Any

from agentmemory_operator.errors import Blocked, OperatorFault, Waiting
from agentmemory_operator.kube import Object

_LAST_WORDS = re.compile(r"([a-z]+(?:-[a-z]+)+): (.+)", re.DOTALL)
"""How our start scripts end when they know why: a word, and what to do."""
_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_MISCONFIGURED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def is_ready(statefulset: Object) -> bool:
    """Whether its pod is ready and made from the present template."""
    status = statefulset.get("status", {})
    metadata = statefulset["metadata"]
    return bool(
        status.get("observedGeneration", 0) >= metadata.get("generation", 1)
        and status.get("readyReplicas", 0) >= 1
        and status.get("updatedReplicas", status.get("readyReplicas", 0)) >= 1
    )


def explain(
    name: str, pod: Object | None, claim: Object | None, warnings: list[Object], *, classes: set[str]
) -> OperatorFault:
    """What keeps the pod of StatefulSet `name` from being ready. `classes` are the StorageClasses there are."""
    if claim is not None and claim.get("status", {}).get("phase") == "Pending":
        missing = _missing_class(claim, classes)
        if missing is not None:
            return missing
    if pod is None:
        return _without_pod(name, warnings)
    return (
        _unschedulable(pod, claim) or _container_trouble(pod) or Waiting("Starting", f"Pod {_name(pod)} is starting.")
    )


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def _missing_class(claim: Object, classes: set[str]) -> OperatorFault | None:
    wanted = claim["spec"].get("storageClassName")
    if wanted is None and not classes:
        return Blocked(
            "StorageClassMissing", f"PersistentVolumeClaim {_name(claim)} names no StorageClass, and the cluster has "
            "no default one. Make one the default, or set storage.storageClass on a new AgentMemory."
        )  # fmt: skip
    if wanted and wanted not in classes:
        return Blocked(
            "StorageClassMissing", f"PersistentVolumeClaim {_name(claim)} waits for StorageClass {wanted}, which is "
            "not there; make it."
        )  # fmt: skip
    return None


def _without_pod(name: str, warnings: list[Object]) -> OperatorFault:
    said = [one.get("message", "") for one in warnings if one.get("reason") == "FailedCreate"]
    if not said:
        return Waiting("Starting", f"StatefulSet {name} has no pod yet.")
    reason = "QuotaExceeded" if "exceeded quota" in said[-1] else "PodForbidden"
    return Blocked(reason, f"StatefulSet {name} cannot make its pod: {said[-1][:600]}")


def _unschedulable(pod: Object, claim: Object | None) -> OperatorFault | None:
    for one in pod.get("status", {}).get("conditions", []):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            pending = claim is not None and claim.get("status", {}).get("phase") == "Pending"
            reason = (
                "VolumePending" if pending and "PersistentVolumeClaim" in one.get("message", "") else "Unschedulable"
            )
            return Blocked(reason, f"Pod {_name(pod)} finds no node: {one.get('message', '')[:600]}")
    return None


def _container_trouble(pod: Object) -> OperatorFault | None:
    for status in pod.get("status", {}).get("containerStatuses", []):
        waiting: dict[str, Any] = status.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _PULLING:
            return Blocked(
                "ImagePullFailed", f"Pod {_name(pod)} cannot have image {status.get('image')}: "
                f"{waiting.get('message', reason)[:400]} Check the name, and imagePullSecrets."
            )  # fmt: skip
        if reason in _MISCONFIGURED:
            return Blocked("PodMisconfigured", f"Pod {_name(pod)}: {waiting.get('message', reason)[:400]}")
        ended = _last_end(status)
        if ended is not None and not status.get("ready"):
            return _crash(pod, ended, looping=reason == "CrashLoopBackOff")
    return None


def _last_end(status: dict[str, Any]) -> dict[str, Any] | None:
    state: dict[str, Any] | None = status.get("state", {}).get("terminated")
    return state or status.get("lastState", {}).get("terminated")


def _crash(pod: Object, ended: dict[str, Any], *, looping: bool) -> OperatorFault | None:
    said = (ended.get("message") or "").strip()
    known = _LAST_WORDS.match(said)
    if known is not None:
        return Blocked(known[1].title().replace("-", ""), known[2].strip()[:800])
    if not looping:
        return None
    how = f"exit status {ended.get('exitCode')}" + (f", {ended['reason']}" if ended.get("reason") else "")
    return Blocked(
        "CrashLooping",
        f"Pod {_name(pod)} keeps ending ({how}){': ' + said[:500] if said else ''}. "
        f"See: kubectl logs {_name(pod)} --previous",
    )
