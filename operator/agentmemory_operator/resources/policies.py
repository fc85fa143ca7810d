"""Who may reach a component, and how many of its pods may be taken away at once."""

from __future__ import annotations

from typing import Any

from agentmemory_operator import names
from agentmemory_operator.resources.common import Manifest, Namespaces, meta, selector
from agentmemory_operator.spec import AgentMemory

_NAMESPACE_NAME = "kubernetes.io/metadata.name"

Peer = dict[str, Any]


def disruption_budget(memory: AgentMemory, component: str, limit: dict[str, int], *, owned: bool) -> Manifest:
    """A PodDisruptionBudget of `{"minAvailable": 1}` or the like. A pod that is not ready may go at any time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta(memory, names.child(memory.name, component), component, owned=owned),
        "spec": {
            **limit,
            "selector": {"matchLabels": selector(memory, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policy(
    memory: AgentMemory, component: str, port: int, peers: list[Peer], *, silent: bool, owned: bool
) -> Manifest:
    """Lets these peers in on this port and nobody else; a `silent` component reaches nobody itself, not even DNS."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(memory, names.child(memory.name, component), component, owned=owned),
        "spec": {
            "podSelector": {"matchLabels": selector(memory, component)},
            "policyTypes": ["Ingress", "Egress"] if silent else ["Ingress"],
            "ingress": [{"from": peers, "ports": [{"protocol": "TCP", "port": port}]}],
        },
    }


def clients(memory: AgentMemory, namespaces: Namespaces) -> list[Peer]:
    """Who uses a store: sidecars and drain of this memory, the operator, and, where the memory is monitored, the
    exporters that may run in the monitoring namespace."""
    peers = [
        _pods({names.SIDECAR_LABEL: memory.name}),
        _pods(selector(memory, "drain")),
        _namespace(namespaces.operator),
    ]
    if memory.spec.monitoring.enabled and namespaces.monitoring != namespaces.operator:
        peers.append(_namespace(namespaces.monitoring))
    return peers


def pooler_of(memory: AgentMemory) -> Peer:
    """The pooler of this memory."""
    return _pods(selector(memory, "pooler"))


def _pods(labels: dict[str, str]) -> Peer:
    """Pods of the memory's own namespace."""
    return {"podSelector": {"matchLabels": labels}}


def _namespace(name: str) -> Peer:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}}
