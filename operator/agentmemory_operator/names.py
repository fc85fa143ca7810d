"""Names that people and other programs see: the API, labels, annotations, objects."""

from __future__ import annotations

GROUP = "agentmemory.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AgentMemory"
PLURAL = "agentmemories"
MANAGER = "agentmemory-operator"
"""Field manager of every server-side apply, and the value of app.kubernetes.io/managed-by."""

MEMORY_LABEL = f"{GROUP}/memory"
"""On every object made for an AgentMemory: its name."""
SIDECAR_LABEL = f"{GROUP}/sidecar"
"""On every pod with an injected sidecar: the name of its AgentMemory."""
INJECT_LABEL = f"{GROUP}/inject"
"""On a pod: the name of an AgentMemory, "true" or "false"; on a namespace: "true"."""

RECONCILE_ANNOTATION = f"{GROUP}/reconcile"
ROTATE_ANNOTATION = f"{GROUP}/rotate"
ROTATE_CERTIFICATES_ANNOTATION = f"{GROUP}/rotate-certificates"

AGENTS_ANNOTATION = f"{GROUP}/agents"
CONTAINERS_ANNOTATION = f"{GROUP}/containers"
INJECTION_ERROR_ANNOTATION = f"{GROUP}/injection-error"

SIDECAR_CONTAINER = "agentmemory"
SYSTEM_NAMESPACE = "kube-system"
"""Its pods never get a sidecar."""


def child(memory: str, part: str) -> str:
    """The name of an object made for a memory: `research-redis`."""
    return f"{memory}-{part}"
