"""Metadata, addresses and names that all manifests share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentmemory_operator import names
from agentmemory_operator.spec import AgentMemory

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Namespaces:
    """The namespaces, other than the memory's own, whose pods have a reason to reach a store."""

    operator: str
    monitoring: str


@dataclass(frozen=True)
class StoreAddress:
    """Where a store answers. `database` is Postgres' own; `tls` says whether it is spoken at all."""

    host: str
    port: int
    tls: bool
    database: str | None = None


@dataclass(frozen=True)
class Login:
    """Who may connect to a store. The password never shows in a repr."""

    username: str
    password: str = field(repr=False)


def labels(memory: AgentMemory, component: str) -> dict[str, str]:
    """The labels of every object made for a memory."""
    return {
        "app.kubernetes.io/name": "agentmemory",
        "app.kubernetes.io/instance": memory.name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "agentmemory",
        "app.kubernetes.io/managed-by": names.MANAGER,
        names.MEMORY_LABEL: memory.name,
    }


def selector(memory: AgentMemory, component: str) -> dict[str, str]:
    """The labels that tell the pods of one component; they can never change for a StatefulSet that is there."""
    return {"app.kubernetes.io/component": component, names.MEMORY_LABEL: memory.name}


def pod_labels(memory: AgentMemory, component: str) -> dict[str, str]:
    """The labels of a pod of ours, which never gets a sidecar."""
    return labels(memory, component) | {names.INJECT_LABEL: "false"}


def owner(memory: AgentMemory) -> list[dict[str, Any]]:
    """The reference by which an object goes with its AgentMemory."""
    return [
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": memory.name,
            "uid": memory.uid,
            "controller": True,
        }
    ]


def meta(memory: AgentMemory, name: str, component: str, *, owned: bool) -> dict[str, Any]:
    """The metadata of an object. `owned` says that it goes with the AgentMemory whatever the deletion policy; what is
    not owned is of value, and goes only under Delete."""
    metadata: dict[str, Any] = {"name": name, "namespace": memory.namespace, "labels": labels(memory, component)}
    if owned or memory.spec.deletion_policy == "Delete":
        metadata["ownerReferences"] = owner(memory)
    return metadata


def hosts(memory: AgentMemory, part: str) -> list[str]:
    """The names under which the Service of a part (`redis`) is reached, the shortest first."""
    name = names.child(memory.name, part)
    scoped = f"{name}.{memory.namespace}"
    return [name, scoped, f"{scoped}.svc", f"{scoped}.svc.cluster.local"]


def host(memory: AgentMemory, part: str) -> str:
    """The name by which everybody in the cluster is told to reach a part: valid whatever the cluster's own domain."""
    return f"{names.child(memory.name, part)}.{memory.namespace}.svc"


def ssl_mode(memory: AgentMemory, *, ca: bool, direct: bool = False) -> str:
    """How Postgres is spoken to, as libpq names it; `ca` says whether there is an authority to trust.

    An authority that was given is used: the mode is then `verify-full`, unless the spec says `disable` or `verify-ca`.
    `direct` means Postgres itself, where there may be a pooler in front of it.
    """
    external = memory.spec.postgres.external
    behind_pooler = memory.spec.postgres.pooler.enabled and not direct
    if external is None or behind_pooler:
        return "verify-full" if ca else "require"
    if ca and external.ssl_mode not in ("disable", "verify-ca"):
        return "verify-full"
    return external.ssl_mode
