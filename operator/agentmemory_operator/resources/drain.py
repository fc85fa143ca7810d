"""The Job that empties the journal of a memory when no sidecar is left to do it."""

from __future__ import annotations

from typing import Any

from agentmemory_operator import names
from agentmemory_operator.resources import sidecar
from agentmemory_operator.resources.common import Manifest, meta, pod_labels
from agentmemory_operator.spec import AgentMemory

PATIENCE = 600
"""How long one attempt goes on, in seconds."""
_ATTEMPTS = 3
_KEPT = 600


def manifest(memory: AgentMemory, *, image: str, pull_policy: str) -> Manifest:
    """The Job. Its template cannot be changed: another one needs this one deleted first."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta(memory, names.child(memory.name, "drain"), "drain", owned=True),
        "spec": {
            "backoffLimit": _ATTEMPTS - 1,
            "activeDeadlineSeconds": _ATTEMPTS * (PATIENCE + 60),
            "ttlSecondsAfterFinished": _KEPT,
            "template": {
                "metadata": {"labels": pod_labels(memory, "drain")},
                "spec": _pod(memory, image, pull_policy),
            },
        },
    }


def _pod(memory: AgentMemory, image: str, pull_policy: str) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": names.SIDECAR_CONTAINER,
                "image": image,
                "imagePullPolicy": pull_policy,
                "args": ["drain"],
                "env": [*sidecar.environment(), {"name": "AGENTMEMORY_DRAIN_TIMEOUT", "value": str(PATIENCE)}],
                "resources": memory.spec.sidecar.resources or sidecar.default_resources(),
                "securityContext": sidecar.security_context(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": sidecar.mounts(),
            }
        ],
        "volumes": sidecar.volumes(memory.name),
    }
