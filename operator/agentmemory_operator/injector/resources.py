"""How much the sidecar asks for and may take: the pod's annotations over the AgentMemory over the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from agentmemory_operator.injector.wishes import Bound, Pod, Unfit, Wishes, tuning_annotation
from agentmemory_operator.resources.sidecar import default_resources

_MEMBERS: Mapping[Bound, str] = {"request": "requests", "limit": "limits"}


@dataclass(frozen=True)
class _Given:
    """A quantity, and how much its source weighs."""

    quantity: str
    weight: int


def sidecar_resources(pod: Pod, wishes: Wishes, spec: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    """The `resources` of the container. What the pod bounds as a whole (`spec.resources`) is left to the pod, since the
    API server would refuse a pod whose parts do not fit into it. Raises Unfit."""
    sources = (
        dict(_quantities(default_resources())),
        dict(_quantities(spec or {})),
        wishes.resources,
    )
    shared = _shared(pod)
    for resource, bound in wishes.resources:
        if resource in shared:
            raise Unfit(
                f"{tuning_annotation(resource, bound)}: the pod's own spec.resources bound {resource} for all of its "
                "containers; leave the annotation out"
            )
    resources: dict[str, dict[str, str]] = {}
    for resource in sorted({resource for source in sources for resource, _ in source} - shared):
        for bound, quantity in _settle(resource, sources).items():
            resources.setdefault(_MEMBERS[bound], {})[resource] = quantity
    return resources


def _quantities(spec: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Bound], str]]:
    for bound, member in _MEMBERS.items():
        for resource, quantity in (spec.get(member) or {}).items():
            yield (resource, bound), str(quantity)


def _shared(pod: Pod) -> set[str]:
    whole = pod["spec"].get("resources") or {}
    return {resource for member in _MEMBERS.values() for resource in whole.get(member) or {}}


def _settle(resource: str, sources: tuple[Mapping[tuple[str, Bound], str], ...]) -> dict[Bound, str]:
    """Request and limit of one resource; where they contradict each other, that of the weightier source holds for
    both. Raises Unfit."""
    given: dict[Bound, _Given] = {}
    for weight, source in enumerate(sources):
        for bound in _MEMBERS:
            if (resource, bound) in source:
                given[bound] = _Given(source[resource, bound], weight)
    request, limit = given.get("request"), given.get("limit")
    if request is not None and limit is not None and _exceeds(resource, request.quantity, limit.quantity):
        if request.weight == limit.weight:
            raise Unfit(f"the sidecar's {resource} request {request.quantity} is above its limit {limit.quantity}")
        heavier = max(request, limit, key=lambda one: one.weight)
        given = dict.fromkeys(given, heavier)
    return {bound: one.quantity for bound, one in given.items()}


def _exceeds(resource: str, request: str, limit: str) -> bool:
    try:
        asked, granted = (parse_quantity(one) for one in (request, limit))  # type: ignore[no-untyped-call]
        return bool(asked > granted)
    except ValueError as error:
        raise Unfit(f"spec.sidecar.resources of the AgentMemory: {resource}: {error}") from None
