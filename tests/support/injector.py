"""Pods, AgentMemories and reviews for the tests of the injector."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from typing import Any

import jsonpatch

from agentmemory_operator.injector.decision import Known, decide
from agentmemory_operator.injector.patch import Image, patch
from agentmemory_operator.names import INJECT_LABEL
from agentmemory_operator.spec import AgentMemory, read

IMAGE = Image("agentmemory-sidecar:1", "IfNotPresent")
NAMESPACE = "team"
Pod = dict[str, Any]


def resource(name: str = "research", *, namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    """An AgentMemory as the API server holds it; `spec` adds to the least that there is."""
    return {
        "apiVersion": "agentmemory.io/v1alpha1",
        "kind": "AgentMemory",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}, **spec},
    }


def memory(name: str = "research", **spec: Any) -> AgentMemory:
    return read(resource(name, **spec))


def known(*memories: Known) -> dict[str, Known]:
    return {one.name: one for one in memories}


def container(name: str = "app", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": f"{name}:1", **fields}


def pod(
    asks: str | None = "research",
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Pod:
    """A pod of a Deployment, as it is at its creation."""
    every = dict(labels or {}) | ({INJECT_LABEL: asks} if asks is not None else {})
    metadata: dict[str, Any] = {"generateName": "agent-7d9-"}
    metadata |= {"labels": every} if every else {}
    metadata |= {"annotations": dict(annotations)} if annotations else {}
    return {"metadata": metadata, "spec": {"containers": [container()], **spec}}


def patched(
    one: Pod, *, memories: Mapping[str, Known] | None = None, by_namespace: bool = False, image: Image = IMAGE
) -> Pod:
    """The pod as the API server has it after the injector; the pod that went in is left as it is."""
    memories = known(memory()) if memories is None else memories
    before = copy.deepcopy(one)
    decision = decide(one, memories=memories, namespace=NAMESPACE, by_namespace=by_namespace, excluded=("kube-system",))
    operations = patch(one, decision, image)
    assert one == before, "the pod that went in was changed"
    result: Pod = jsonpatch.apply_patch(one, json.loads(json.dumps(operations)))
    return result


def sidecar_of(one: Pod) -> dict[str, Any]:
    """The injected container; it has to be the first one."""
    first: dict[str, Any] = one["spec"]["initContainers"][0]
    assert first["name"] == "agentmemory"
    return first


def environment(one: dict[str, Any]) -> dict[str, Any]:
    """Of a container: values by name, or where they come from."""
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in one.get("env", [])}


def review(one: Any, **request: Any) -> dict[str, Any]:
    """What the API server sends at the creation of a pod."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0001",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": NAMESPACE,
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": one,
            "oldObject": None,
            "dryRun": False,
            **request,
        },
    }


def operations_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The patch in an answer; empty where there is none."""
    response = answer["response"]
    assert response["allowed"] is True
    if "patch" not in response:
        return []
    assert response["patchType"] == "JSONPatch"
    operations: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"]))
    return operations
