"""Redis in a StatefulSet of one pod: append-only file, no eviction, TLS, users in a file beside the data."""

from __future__ import annotations

from typing import Any

from agentmemory_operator import names
from agentmemory_operator.resources import stores
from agentmemory_operator.resources.common import Manifest, Namespaces
from agentmemory_operator.resources.pods import (
    ADMIN_FILES,
    TLS_FILES,
    container_security,
    mount,
    probe,
    secret_volume,
    shell,
    starting,
)
from agentmemory_operator.resources.policies import clients
from agentmemory_operator.resources.stores import DATA_FILES, Store
from agentmemory_operator.resources.tuning import memory_limit
from agentmemory_operator.spec import AgentMemory, ManagedRedis

PORT = 6379
GRACE = 60
SHARE_OF_MEMORY = 0.7
"""Of the container's memory; the rest is for buffers, and for the copy that a rewrite of the file works on."""
_DEFAULT_RESOURCES = {"requests": {"memory": "32Mi"}}


def manifests(memory: AgentMemory, *, namespaces: Namespaces) -> list[Manifest]:
    """All that is applied for a managed Redis. It starts once Secrets N-redis-admin and N-redis-tls are there."""
    spec = memory.spec.redis.managed
    assert spec is not None
    store = Store(
        component="redis",
        protocol="redis",
        port=PORT,
        grace=GRACE,
        spec=spec,
        container=_container(spec),
        volumes=[
            secret_volume("admin", names.child(memory.name, "redis-admin"), ["password"]),
            secret_volume("tls", names.child(memory.name, "redis-tls")),
        ],
        peers=clients(memory, namespaces),
    )
    return stores.manifests(memory, store)


def options(spec: ManagedRedis) -> list[str]:
    """The options of the server that depend on the spec."""
    limit = memory_limit(spec.resources)
    most = int(limit * SHARE_OF_MEMORY) if limit is not None else 0
    return ["--appendfsync", spec.persistence.appendfsync, "--maxmemory", str(most)]


def _container(spec: ManagedRedis) -> dict[str, Any]:
    serves = {"exec": {"command": shell("redis-probe.sh")}}
    answers = {"exec": {"command": [*shell("redis-probe.sh"), "alive"]}}
    return {
        "name": "redis",
        "image": spec.image,
        "command": shell("redis-start.sh"),
        "args": options(spec),
        "ports": [{"name": "redis", "containerPort": PORT}],
        "resources": spec.resources or _DEFAULT_RESOURCES,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("data", DATA_FILES),
            mount("admin", ADMIN_FILES, read_only=True),
            mount("tls", TLS_FILES, read_only=True),
        ],
        "startupProbe": starting(serves),
        "readinessProbe": probe(serves, period=10, failures=3),
        # A slow disk can stop it for minutes, and a restart would only add to that.
        "livenessProbe": probe(answers, period=30, failures=20, timeout=10),
    }
