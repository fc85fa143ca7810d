"""Which pods get a sidecar, of which AgentMemory, and why the others do not. Pure: a pod and what is known go in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agentmemory_operator.injector.resources import sidecar_resources
from agentmemory_operator.injector.wishes import (
    ANY,
    Pod,
    Unfit,
    Wishes,
    annotations_of,
    asked_for,
    containers_of,
    labels_of,
    read_wishes,
)
from agentmemory_operator.names import INJECT_LABEL, SIDECAR_CONTAINER, SIDECAR_LABEL
from agentmemory_operator.resources.sidecar import SCRATCH_VOLUME, VOLUME
from agentmemory_operator.spec import AgentMemory

_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_OS_LABEL = "kubernetes.io/os"
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Unreadable:
    """An AgentMemory that is there, but whose spec cannot be used."""

    name: str
    message: str


Known = AgentMemory | Unreadable


@dataclass(frozen=True)
class Leave:
    """The pod did not ask, or has its sidecar already."""


@dataclass(frozen=True)
class Miss:
    """The pod asked and gets none; it is admitted all the same. The message goes into a warning, which the API server
    cuts at 256 characters. `unknown`: an AgentMemory made a moment ago would mend it."""

    message: str
    unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class Inject:
    """The pod gets the sidecar of this memory."""

    memory: AgentMemory
    wishes: Wishes
    resources: dict[str, dict[str, str]]


Decision = Leave | Miss | Inject


class _Unknown(Unfit):
    """No such AgentMemory as far as is known."""


def decide(
    pod: Pod, *, memories: Mapping[str, Known], namespace: str, by_namespace: bool, excluded: Collection[str] = ()
) -> Decision:
    """What becomes of a pod in `namespace`, whose AgentMemories are `memories` by name. `by_namespace`: its namespace
    asks for the pods that do not ask themselves. Pods of an `excluded` namespace are never touched."""
    asked = asked_for(pod, by_namespace=by_namespace)
    if asked is None or namespace in excluded or _is_injected(pod):
        return Leave()
    try:
        memory = _resolve(asked, memories, namespace)
        _check_kind(pod)
        _check_names(pod)
        _check_ports(pod, memory)
        wishes = read_wishes(pod)
        return Inject(
            memory=memory, wishes=wishes, resources=sidecar_resources(pod, wishes, memory.spec.sidecar.resources)
        )
    except Unfit as reason:
        return Miss(str(reason), unknown=isinstance(reason, _Unknown))


def _is_injected(pod: Pod) -> bool:
    return SIDECAR_LABEL in labels_of(pod) and _has_container(pod)


def _has_container(pod: Pod) -> bool:
    return any(container["name"] == SIDECAR_CONTAINER for container in containers_of(pod))


def _resolve(asked: str, memories: Mapping[str, Known], namespace: str) -> AgentMemory:
    known = _only(memories, namespace) if asked == ANY else memories.get(asked)
    if known is None:
        raise _Unknown(
            f"there is no AgentMemory {asked[:63]!r} in namespace {namespace!r}; create it, then the pod anew"
        )
    if isinstance(known, Unreadable):
        raise Unfit(f"AgentMemory {known.name!r} cannot be used: {known.message[:120]}")
    if known.deleting:
        raise Unfit(f"AgentMemory {known.name!r} is being deleted")
    return known


def _only(memories: Mapping[str, Known], namespace: str) -> Known:
    if not memories:
        raise _Unknown(f'{INJECT_LABEL}: "true", but there is no AgentMemory in namespace {namespace!r}')
    if len(memories) > 1:
        names = sorted(memories)
        more = ", ..." if len(names) > _SHOWN_NAMES else ""
        raise Unfit(
            f"its namespace has {len(names)} AgentMemories; name one of them in the pod's label {INJECT_LABEL}: "
            f"{', '.join(names[:_SHOWN_NAMES])}{more}"
        )
    return next(iter(memories.values()))


def _check_kind(pod: Pod) -> None:
    """The pods that no sidecar can be in. Raises Unfit."""
    spec: Mapping[str, Any] = pod["spec"]
    if spec.get("hostNetwork"):
        raise Unfit(
            "a pod with hostNetwork gets no sidecar: its API would be open to the whole node; "
            f'label the pod {INJECT_LABEL}: "false" where this is meant'
        )
    if _MIRROR_ANNOTATION in annotations_of(pod):
        raise Unfit("a static pod of a node cannot use Secrets, so it gets no sidecar")
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get(_OS_LABEL) or "linux"
    if system != "linux":
        raise Unfit(f"the sidecar runs on Linux, this pod on {system[:20]}")


def _check_names(pod: Pod) -> None:
    """Raises Unfit where the pod uses a name of ours for something else."""
    if _has_container(pod):
        raise Unfit(f"the pod has a container {SIDECAR_CONTAINER!r}, which is the sidecar's name; rename it")
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] in (VOLUME, SCRATCH_VOLUME):
            raise Unfit(f"the pod has a volume {volume['name']!r}, which is a name of the sidecar's; rename it")


def _check_ports(pod: Pod, memory: AgentMemory) -> None:
    """Raises Unfit."""
    sidecar = memory.spec.sidecar
    for container in containers_of(pod):
        for port in container.get("ports") or []:
            number = port.get("containerPort")
            if number in (sidecar.port, sidecar.ops_port) and port.get("protocol", "TCP") == "TCP":
                raise Unfit(
                    f"container {container['name']!r} has port {number}, which is the sidecar's; change it, or "
                    f"spec.sidecar.port and opsPort of AgentMemory {memory.name!r}"
                )
