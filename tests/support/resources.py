"""AgentMemories for the tests of what is made of them."""

from __future__ import annotations

from typing import Any

from agentmemory_operator.resources import drain, pooler, postgres, redis
from agentmemory_operator.resources.common import Login, Manifest, Namespaces, StoreAddress
from agentmemory_operator.spec import AgentMemory, read

NAMESPACES = Namespaces("agentmemory-system", "monitoring")
POSTGRES = StoreAddress("research-postgres.team.svc", 5432, True, "agentmemory")
LOGINS = [Login("team_1", "first-secret"), Login("team_2", "second-secret")]


def memory(name: str = "research", **spec: Any) -> AgentMemory:
    """Managed stores, unless the spec says otherwise."""
    stores: dict[str, Any] = {"redis": {"managed": {}}, "postgres": {"managed": {}}}
    return read({"metadata": {"name": name, "namespace": "team", "uid": "u-1"}, "spec": stores | spec})


def everything(one: AgentMemory) -> list[Manifest]:
    """All that is made of a memory with managed stores and a pooler."""
    return [
        *redis.manifests(one, namespaces=NAMESPACES),
        *postgres.manifests(one, namespaces=NAMESPACES),
        *pooler.manifests(one, postgres=POSTGRES, namespaces=NAMESPACES, logins=LOGINS),
        drain.manifest(one, image="sidecar:1", pull_policy="IfNotPresent"),
    ]


def by_kind(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The manifests of one component."""
    return {one["kind"]: one for one in manifests}


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The pod templates among them."""
    return [one["spec"]["template"] for one in manifests if "template" in one.get("spec", {})]
