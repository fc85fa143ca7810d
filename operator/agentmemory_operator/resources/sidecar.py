"""What every container of the sidecar image needs, injected or in a Job: files, environment, security, resources.

The injector imports this module, so it imports neither Kopf nor the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentmemory_operator import names
from agentmemory_operator.spec import STORES, KeyRef, Spec, Store

FILES = "/etc/agentmemory"
"""Where the resolved AgentMemory, the certificates to trust and the logins are mounted."""
VOLUME = "agentmemory"
SCRATCH_VOLUME = "agentmemory-tmp"
USER = 65532
EMBEDDING_KEY = "embedding-api-key"
"""The file with the key of the provider of embeddings."""
DISTILLATION_KEY = "distillation-api-key"
"""The file with the key of the server that facts are drawn by."""


def api_keys(spec: Spec) -> dict[str, KeyRef]:
    """Where the keys of the servers that a sidecar asks are, by the file that it reads each from."""
    given = {
        EMBEDDING_KEY: spec.embedding.secret_ref,
        DISTILLATION_KEY: None if spec.distillation is None else spec.distillation.secret_ref,
    }
    return {file: reference for file, reference in given.items() if reference is not None}


def login_keys(stores: Iterable[Store]) -> list[str]:
    """The keys of the Secret N-credentials that sidecars mount; its others are the operator's own."""
    return [f"{store}-{part}" for store in stores for part in ("username", "password")]


def volumes(
    memory_name: str, keys: Mapping[str, KeyRef] | None = None, *, stores: Iterable[Store] = STORES
) -> list[dict[str, Any]]:  # fmt: skip
    """The volumes of a pod with a sidecar of this AgentMemory, which uses these `stores`; `keys` are as `api_keys`
    answers."""
    sources: list[dict[str, Any]] = [
        {"configMap": {"name": names.child(memory_name, "sidecar")}},
        {
            "secret": {
                "name": names.child(memory_name, "credentials"),
                "items": [{"key": key, "path": key} for key in login_keys(stores)],
            }
        },
    ]
    for file, reference in (keys or {}).items():
        # Optional: a key that is missing keeps no agent from starting, and is mounted when it comes.
        items = [{"key": reference.key, "path": file}]
        sources.append({"secret": {"name": reference.name, "items": items, "optional": True}})
    return [
        {"name": VOLUME, "projected": {"defaultMode": 0o444, "sources": sources}},
        {"name": SCRATCH_VOLUME, "emptyDir": {"sizeLimit": "64Mi"}},
    ]


def mounts() -> list[dict[str, Any]]:
    """Where the container mounts those volumes."""
    return [
        {"name": VOLUME, "mountPath": FILES, "readOnly": True},
        {"name": SCRATCH_VOLUME, "mountPath": "/tmp"},
    ]


def environment() -> list[dict[str, Any]]:
    """The environment of the container; an instance is a pod."""
    return [
        {"name": "AGENTMEMORY_CONFIG", "value": f"{FILES}/agentmemory.yaml"},
        {"name": "AGENTMEMORY_CREDENTIALS_DIR", "value": FILES},
        {"name": "AGENTMEMORY_LOG_FORMAT", "value": "json"},
        {"name": "AGENTMEMORY_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]


def security_context() -> dict[str, Any]:
    """Of the container: the restricted profile does not take the pod's word for these."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def default_resources() -> dict[str, Any]:
    """Where the spec says none: both are set, since a namespace with a quota refuses a pod without. One core serves
    while another embeds."""
    return {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}
