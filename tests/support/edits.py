"""Changes that people make in a cluster, and what they see of it."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager

from support.cluster import SYSTEM, Object, get, pods, wait_for
from support.kubectl import kubectl, kubectl_json


def patch(namespace: str, kind: str, name: str, body: Object) -> None:
    """A merge patch, which changes something. Raises KubectlError with what the API server says where it refuses."""
    said = kubectl("patch", kind, name, "--namespace", namespace, "--type=merge", "--patch", json.dumps(body))
    assert "no change" not in said, f"{body} changes nothing"


def edit(namespace: str, name: str = "research", **spec: object) -> None:
    """Change the spec of a memory."""
    patch(namespace, "agentmemory", name, {"spec": spec})


def nudge(namespace: str, name: str = "research") -> None:
    """Have the operator look at a memory now, and not with its next round."""
    value = os.urandom(4).hex()
    kubectl("annotate", "agentmemory", name, "--namespace", namespace, "--overwrite", f"test/nudge={value}")


def secret_of(namespace: str, name: str) -> dict[str, str]:
    """The members of a Secret."""
    found = get("secret", namespace, name)
    assert found is not None, f"there is no Secret {name}"
    return {key: b64decode(value).decode() for key, value in found.get("data", {}).items()}


def owners(thing: Object) -> list[str]:
    """What an object goes with, as `AgentMemory/research`."""
    return [f"{one['kind']}/{one['name']}" for one in thing["metadata"].get("ownerReferences", [])]


def events_of(namespace: str, name: str = "research") -> dict[str, str]:
    """The Events about a memory: what was said last, by reason."""
    fields = f"regarding.kind=AgentMemory,regarding.name={name}"
    found = kubectl_json("get", "events.events.k8s.io", "--namespace", namespace, "--field-selector", fields)
    told = sorted(found["items"], key=lambda one: str(one["eventTime"]))
    return {one["reason"]: one["note"] for one in told}


@contextmanager
def no_operator() -> Iterator[None]:
    """While it runs, nobody reconciles."""
    deployment = f"--namespace={SYSTEM}", "deployment/agentmemory-operator"
    kubectl("scale", *deployment, "--replicas=0")
    wait_for("the operator to be gone", lambda: not pods(SYSTEM, "app.kubernetes.io/component=operator"))
    try:
        yield
    finally:
        kubectl("scale", *deployment, "--replicas=2")
        kubectl("rollout", "status", *deployment, "--timeout=120s")
