"""What both managed stores are: a StatefulSet of one pod with a volume, a Service, a policy and a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentmemory_operator import names
from agentmemory_operator.resources.common import Manifest, labels, meta, pod_labels, selector
from agentmemory_operator.resources.pods import given, pod_spec
from agentmemory_operator.resources.policies import Peer, disruption_budget, network_policy
from agentmemory_operator.spec import AgentMemory, ManagedPostgres, ManagedRedis

DATA_FILES = "/data"


@dataclass(frozen=True, kw_only=True)
class Store:
    """One managed store. `grace` is how long a clean end may take, in seconds."""

    component: str
    protocol: str
    port: int
    grace: int
    spec: ManagedRedis | ManagedPostgres
    container: dict[str, Any]
    volumes: list[dict[str, Any]]
    peers: list[Peer]


def manifests(memory: AgentMemory, store: Store) -> list[Manifest]:
    """All that is applied for a store."""
    made = [
        network_policy(memory, store.component, store.port, store.peers, silent=True, owned=False),
        service(memory, store.component, store.protocol, store.port, store.port, owned=False),
        _stateful_set(memory, store),
    ]
    if store.spec.pod_disruption_budget.enabled:
        made.append(disruption_budget(memory, store.component, {"minAvailable": 1}, owned=False))
    return made


def service(memory: AgentMemory, component: str, protocol: str, port: int, target: int, *, owned: bool) -> Manifest:
    """The address of a component: `port` leads to `target` of its pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(memory, names.child(memory.name, component), component, owned=owned),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(memory, component),
            "ports": [{"name": component, "port": port, "targetPort": target, "appProtocol": protocol}],
        },
    }


def _stateful_set(memory: AgentMemory, store: Store) -> Manifest:
    name = names.child(memory.name, store.component)
    pod = pod_spec(store.spec, [store.container], store.volumes, grace=store.grace)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": meta(memory, name, store.component, owned=False),
        "spec": {
            "replicas": 1,
            "serviceName": name,
            # With OrderedReady, a pod that cannot start is never replaced by one of a mended spec.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": selector(memory, store.component)},
            "template": {"metadata": {"labels": pod_labels(memory, store.component)}, "spec": pod},
            "volumeClaimTemplates": [_claim(memory, store)],
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": memory.spec.deletion_policy,
                "whenScaled": "Retain",
            },
        },
    }


def _claim(memory: AgentMemory, store: Store) -> dict[str, Any]:
    """Nothing of it can be changed once it is there; the claim that is made of it can grow."""
    storage = store.spec.storage
    return {
        "metadata": {"name": "data", "labels": labels(memory, store.component)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage.size}},
            **given(storageClassName=storage.storage_class),
        },
    }
