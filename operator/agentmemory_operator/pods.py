"""The pods of a memory's agents: which have their sidecar, which asked and got none. Pure, but for the step itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agentmemory_operator import conditions
from agentmemory_operator.injector.wishes import ANY, asked_for, labels_of
from agentmemory_operator.kube import AGENT_MEMORY, NAMESPACE, POD, Object
from agentmemory_operator.names import INJECT_LABEL, SIDECAR_CONTAINER, SIDECAR_LABEL
from agentmemory_operator.work import Work

_SHOWN = 5


@dataclass(frozen=True)
class Sidecars:
    """The pods of one memory that are not over."""

    injected: list[str]
    missing: list[str]
    running: int
    """Pods whose sidecar runs now: as long as there is one, it consolidates."""


async def tend_sidecars(work: Work) -> None:
    """Count the sidecars, and say which pods asked for one and have none."""
    namespace = work.memory.namespace
    here = await work.kube.list(POD, namespace)
    memories = {one["metadata"]["name"] for one in await work.kube.list(AGENT_MEMORY, namespace)}
    by_namespace = namespace_asks(await work.kube.get(NAMESPACE, None, namespace))
    found = count(here, work.memory.name, memories, by_namespace=by_namespace)
    work.sidecars = found
    work.status["sidecars"] = {"injected": len(found.injected), "missing": len(found.missing)}
    if found.missing:
        shown = ", ".join(found.missing[:_SHOWN]) + (", …" if len(found.missing) > _SHOWN else "")
        work.say(
            conditions.SIDECARS, "False", "SidecarMissing",
            f"{len(found.missing)} pods asked for a sidecar and have none: {shown}. Their warnings on creation say "
            "why; if the injector was down, delete the pods: what owns them makes them anew.",
        )  # fmt: skip
    else:
        work.say(conditions.SIDECARS, "True", "AllInjected", f"{len(found.injected)} pods have their sidecar.")


def count(pods: Iterable[Object], memory: str, memories: Collection[str], *, by_namespace: bool) -> Sidecars:
    """What the pods of one namespace are to this memory."""
    injected, missing, running = [], [], 0
    for pod in pods:
        if is_over(pod):
            continue
        if labels_of(pod).get(SIDECAR_LABEL) == memory:
            injected.append(_name(pod))
            running += runs_sidecar(pod)
        elif lacks_sidecar(pod, by_namespace=by_namespace) and _means(pod, memory, memories):
            missing.append(_name(pod))
    return Sidecars(sorted(injected), sorted(missing), running)


def lacks_sidecar(pod: Object, *, by_namespace: bool) -> bool:
    """Whether a pod that is not over asked for a sidecar and has none."""
    asked = asked_for(pod, by_namespace=by_namespace)
    return asked is not None and SIDECAR_LABEL not in labels_of(pod) and not is_over(pod)


def _means(pod: Object, memory: str, memories: Collection[str]) -> bool:
    """Whether it is this memory that the pod asks for: by name, or as the only one there is."""
    asked = labels_of(pod).get(INJECT_LABEL, ANY)
    return asked == memory or (asked == ANY and set(memories) <= {memory})


def is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def runs_sidecar(pod: Object) -> bool:
    statuses = pod.get("status", {}).get("initContainerStatuses", [])
    return any(one["name"] == SIDECAR_CONTAINER and "running" in one.get("state", {}) for one in statuses)


def namespace_asks(namespace: Object | None) -> bool:
    return bool(namespace) and (namespace or {})["metadata"].get("labels", {}).get(INJECT_LABEL) == ANY


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])
