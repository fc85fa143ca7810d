"""What a pod says about the sidecar it asks for: one label, and annotations that only tune."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentmemory_operator.names import AGENTS_ANNOTATION, CONTAINERS_ANNOTATION, GROUP, INJECT_LABEL
from agentmemory_operator.spec import bytes_of

Pod = Mapping[str, Any]
Bound = Literal["request", "limit"]

ANY = "true"
"""Asks for the only AgentMemory of the namespace."""
OPT_OUT = "false"
TUNED = ("cpu", "memory")
_AGENTS = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._:@+~=*?-]{0,127}", re.ASCII)


class Unfit(Exception):
    """This pod asks for a sidecar and cannot have it. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """`agents` is empty for any, `containers` for all; `resources` are quantities by resource and bound."""

    agents: str = ""
    containers: tuple[str, ...] = ()
    resources: Mapping[tuple[str, Bound], str] = field(default_factory=dict)


def asked_for(pod: Pod, *, by_namespace: bool) -> str | None:
    """The name of an AgentMemory, or `true`; None when the pod does not ask. A label of its own goes before that of
    its namespace."""
    asked = labels_of(pod).get(INJECT_LABEL, ANY if by_namespace else OPT_OUT)
    return None if asked == OPT_OUT else asked


def read_wishes(pod: Pod) -> Wishes:
    """Raises Unfit."""
    annotations = annotations_of(pod)
    return Wishes(
        agents=",".join(_agents(annotations)),
        containers=_containers(annotations, pod),
        resources=_resources(annotations),
    )


def labels_of(pod: Pod) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def annotations_of(pod: Pod) -> Mapping[str, str]:
    return pod["metadata"].get("annotations") or {}


def containers_of(pod: Pod) -> list[dict[str, Any]]:
    """Every container, init containers first."""
    spec = pod["spec"]
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _agents(annotations: Mapping[str, str]) -> list[str]:
    patterns = _items(annotations, AGENTS_ANNOTATION)
    for pattern in patterns:
        if _AGENTS.fullmatch(pattern) is None:
            raise Unfit(
                f"{AGENTS_ANNOTATION}: {pattern[:40]!r} is neither an agent id nor a pattern of ids with * and ?"
            )
    return patterns


def _containers(annotations: Mapping[str, str], pod: Pod) -> tuple[str, ...]:
    names = _items(annotations, CONTAINERS_ANNOTATION)
    known = {container["name"] for container in containers_of(pod)}
    for name in names:
        if name not in known:
            raise Unfit(f"{CONTAINERS_ANNOTATION}: the pod has no container {name[:63]!r}")
    return tuple(names)


def _items(annotations: Mapping[str, str], name: str) -> list[str]:
    text = annotations.get(name)
    if text is None:
        return []
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        # An empty value would mean "any" to the sidecar: a template that lost its value must not widen access.
        raise Unfit(f"{name}: an item of the list is empty; give names by commas, or leave the annotation out")
    return items


def _resources(annotations: Mapping[str, str]) -> dict[tuple[str, Bound], str]:
    bounds: tuple[Bound, ...] = ("request", "limit")
    keys = {(resource, bound): tuning_annotation(resource, bound) for resource in TUNED for bound in bounds}
    wishes = {key: annotations[name] for key, name in keys.items() if name in annotations}
    for key, quantity in wishes.items():
        try:
            bytes_of(quantity)
        except ValueError:
            raise Unfit(
                f"{keys[key]}: {quantity[:40]!r} is not a quantity; write it like 100m, 2, 256Mi or 1Gi"
            ) from None
    return wishes


def tuning_annotation(resource: str, bound: Bound) -> str:
    """`agentmemory.io/sidecar-cpu-request`"""
    return f"{GROUP}/sidecar-{resource}-{bound}"
