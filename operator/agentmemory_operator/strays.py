"""Pods that asked for a sidecar and have none, whatever they asked for: told once on the pod, and counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime

from agentmemory_operator import events
from agentmemory_operator.config import Config
from agentmemory_operator.injector.wishes import ANY, annotations_of, labels_of
from agentmemory_operator.kube import NAMESPACE, POD, Kube, KubeError, Object
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.names import INJECT_LABEL, INJECTION_ERROR_ANNOTATION, SIDECAR_LABEL, SYSTEM_NAMESPACE
from agentmemory_operator.pods import lacks_sidecar, namespace_asks

logger = logging.getLogger(__name__)

EVERY = 20.0
"""Seconds between two looks."""
_ASKED = f"{INJECT_LABEL},{INJECT_LABEL}!=false,!{SIDECAR_LABEL}"
_UNLABELLED = f"!{INJECT_LABEL},!{SIDECAR_LABEL}"


async def run(kube: Kube, config: Config, metrics: Metrics) -> None:
    """Look again and again, until cancelled."""
    told: set[str] = set()
    while True:
        try:
            told = await sweep(kube, config, metrics, told, now=datetime.now(UTC))
        except KubeError as error:
            logger.warning("pods without a sidecar cannot be looked for: %s", error)
        await asyncio.sleep(EVERY)


async def sweep(kube: Kube, config: Config, metrics: Metrics, told: Collection[str], *, now: datetime) -> set[str]:
    """Look once, and tell of the pods whose uid is not `told` yet; answer the uids of all. Raises KubeError."""
    found = await _find(kube, config)
    counts = Counter((pod["metadata"]["namespace"], labels_of(pod).get(INJECT_LABEL, ANY)) for pod in found)
    metrics.missing.clear()
    for key, number in counts.items():
        metrics.missing.labels(*key).set(number)
    for pod in found:
        if pod["metadata"]["uid"] in told:
            continue
        try:
            await events.tell(kube, compose(pod, instance=config.pod, now=now))
        except KubeError as error:
            # One namespace that takes no Events (a quota) is not to keep others from theirs.
            metadata = pod["metadata"]
            logger.warning(
                "%s/%s has no sidecar, and no Event says so: %s", metadata["namespace"], metadata["name"], error
            )
    return {pod["metadata"]["uid"] for pod in found}


def excluded(config: Config) -> tuple[str, ...]:
    """The namespaces whose pods the injector never touches, whatever they ask for."""
    return SYSTEM_NAMESPACE, config.namespace


async def _find(kube: Kube, config: Config) -> list[Object]:
    pods: list[Object] = []
    for namespace in config.watch_namespaces or (None,):
        asked = await _list_pods(kube, namespace, _ASKED)
        pods += [pod for pod in asked if lacks_sidecar(pod, by_namespace=False)]
    for namespace in await _asking_namespaces(kube, config):
        inside = await _list_pods(kube, namespace, _UNLABELLED)
        pods += [pod for pod in inside if lacks_sidecar(pod, by_namespace=True)]
    left_alone = excluded(config)
    return [pod for pod in pods if pod["metadata"]["namespace"] not in left_alone]


async def _list_pods(kube: Kube, namespace: str | None, labels: str) -> list[Object]:
    """Where the right is gone with its namespace, there are no pods, and the others are looked at all the same."""
    try:
        return await kube.list(POD, namespace, labels=labels)
    except KubeError as error:
        if error.passing or namespace is None:
            raise
        logger.warning("pods in %s cannot be looked at: %s", namespace, error)
        return []


async def _asking_namespaces(kube: Kube, config: Config) -> list[str]:
    if config.watch_namespaces:
        # Who may see some namespaces only may not list them.
        seen = [await kube.get(NAMESPACE, None, name) for name in config.watch_namespaces]
        return [str(one["metadata"]["name"]) for one in seen if one is not None and namespace_asks(one)]
    labelled = await kube.list(NAMESPACE, labels=f"{INJECT_LABEL}={ANY}")
    return [str(one["metadata"]["name"]) for one in labelled]


def compose(pod: Object, *, instance: str, now: datetime) -> Object:
    """The Event that says so."""
    why = annotations_of(pod).get(INJECTION_ERROR_ANNOTATION) or (
        "it was made while the injector did not answer, or before its namespace asked. Delete it: what owns it makes "
        "it anew"
    )
    return events.compose(
        pod, reason="SidecarMissing", action="Inject", kind="Warning", instance=instance, now=now,
        note=f"This pod asked for a memory sidecar and has none: {why}.",
        name=events.name_once(pod, "SidecarMissing"),
    )  # fmt: skip
