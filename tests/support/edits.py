"""Changes that people make in a cluster, and what they see of it."""

from __future__ import annotations

import json
from base64 import b64decode

from support.cluster import Object, get
from support.kubectl import kubectl, kubectl_json


def patch(namespace: str, kind: str, name: str, body: Object) -> None:
    """A merge patch. Raises KubectlError with what the API server says where it refuses."""
    kubectl("patch", kind, name, "--namespace", namespace, "--type=merge", "--patch", json.dumps(body))


def edit(namespace: str, name: str = "research", **spec: object) -> None:
    """Change the spec of a memory."""
    patch(namespace, "agentmemory", name, {"spec": spec})


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
