"""What the pods of stores and pooler have in common: security, placement, scripts, mounted Secrets, probes."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from agentmemory_operator.spec import Placement

USER = 999
"""Who the stores run as: the user of that number is there in the images of Redis, Postgres and PgBouncer alike."""
ADMIN_FILES = "/etc/agentmemory/admin"
TLS_FILES = "/etc/agentmemory/tls"
LONGEST_START = 6 * 3600  # seconds
_READABLE_BY_GROUP = 0o440


def given(**members: Any) -> dict[str, Any]:
    """The members that say something: an empty list or object would never be found in the live object again."""
    return {name: value for name, value in members.items() if value not in (None, {}, [])}


@cache
def script(name: str) -> str:
    """The text of a script that stands beside this module."""
    return files(__package__).joinpath(name).read_text()


def shell(name: str) -> list[str]:
    """The command that runs a script with the image's own shell; what follows is its arguments.

    The first of those is the name it goes by.
    """
    return ["/bin/sh", "-c", script(name), name.removesuffix(".sh")]


def literal(text: str) -> str:
    """The text, safe from the substitution of `$(NAME)` in commands and arguments of a container."""
    return text.replace("$", "$$")


def pod_security() -> dict[str, Any]:
    """The security context of a pod: the restricted profile, and volumes that its user can write to."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """The security context of a container in such a pod."""
    return {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_spec(
    placement: Placement, containers: list[dict[str, Any]], volumes: list[dict[str, Any]], *, grace: int
) -> dict[str, Any]:
    """The spec of a pod that asks nothing of Kubernetes; `grace` is how long it may take to end, in seconds."""
    return {
        "containers": containers,
        "volumes": volumes,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": grace,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **given(
            nodeSelector=placement.node_selector,
            tolerations=placement.tolerations,
            affinity=placement.affinity,
            priorityClassName=placement.priority_class_name,
            imagePullSecrets=placement.image_pull_secrets,
            topologySpreadConstraints=placement.topology_spread_constraints,
        ),
    }


def secret_volume(name: str, secret: str, keys: list[str] | None = None, *, optional: bool = False) -> dict[str, Any]:
    """Mounts a Secret, or those keys of it, for the pod's user alone. An `optional` one may lack them."""
    items = [{"key": key, "path": key} for key in keys or []]
    source = {"secretName": secret, "defaultMode": _READABLE_BY_GROUP}
    return {"name": name, "secret": {**source, **given(items=items, optional=optional or None)}}


def scratch(name: str, size: str, *, in_memory: bool = False) -> dict[str, Any]:
    """An empty folder that lives as long as the pod, for at most that much."""
    return {"name": name, "emptyDir": {"sizeLimit": size, **given(medium="Memory" if in_memory else None)}}


def mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    """Where a container sees a volume."""
    return {"name": name, "mountPath": path, **given(readOnly=read_only or None)}


def probe(handler: dict[str, Any], *, period: int, failures: int, timeout: int = 5) -> dict[str, Any]:
    """A probe every `period` seconds that gives up after so many failures in a row."""
    return {**handler, "periodSeconds": period, "timeoutSeconds": timeout, "failureThreshold": failures}


def starting(handler: dict[str, Any]) -> dict[str, Any]:
    """A startup probe that looks often and has the patience for any recovery: killing it would only begin it anew."""
    return probe(handler, period=1, failures=LONGEST_START)
