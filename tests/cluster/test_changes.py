"""Changes of what is there: by hand, which are mended; of the spec, which are refused where they cannot be done; and by
nobody at all, while a memory is paused."""

from __future__ import annotations

from typing import Any

import pytest

from support.cluster import (
    annotate,
    apply,
    conditions,
    get,
    memory_manifest,
    settled,
    wait_condition,
    wait_for,
    wait_ready,
)
from support.edits import edit, patch
from support.kubectl import KubectlError, kubectl

pytestmark = pytest.mark.cluster

REDIS = "research-redis"
OTHER_PORT = {"name": "redis", "port": 6379, "targetPort": 6380, "protocol": "TCP"}
DRIFT: dict[str, dict[str, Any]] = {
    "service": {"spec": {"ports": [OTHER_PORT], "selector": {"app": "somebody-elses"}}},
    "statefulset": {"spec": {"replicas": 0}},
    "networkpolicy": {"spec": {"ingress": [{}]}},
    "poddisruptionbudget": {
        "spec": {"minAvailable": 0},
        "metadata": {"labels": {"app.kubernetes.io/part-of": "something"}},
    },
}


def declared(namespace: str, kind: str, name: str = REDIS) -> Any:
    """What is declared in an object: its spec and labels, apart from what a cluster counts and notes."""
    found = get(kind, namespace, name)
    return found and {"spec": found["spec"], "labels": found["metadata"]["labels"]}


def test_what_was_changed_by_hand_is_mended_unless_paused(namespace: str, memory: str) -> None:
    before = {kind: declared(namespace, kind) for kind in DRIFT}
    for kind, change in DRIFT.items():
        patch(namespace, kind, REDIS, change)
    wait_for("all to be as before", lambda: {kind: declared(namespace, kind) for kind in DRIFT} == before)
    for kind in ("networkpolicy", "service"):
        kubectl("delete", kind, REDIS, "--namespace", namespace)
    wait_for("policy and Service to be there again", lambda: all(declared(namespace, kind) for kind in DRIFT))
    settled(namespace)
    annotate(namespace, "reconcile", "disabled")
    wait_condition(namespace, "Paused", reason="Annotated")
    kubectl("delete", "poddisruptionbudget", REDIS, "--namespace", namespace)
    edit(namespace, consolidation={"maxDelay": "4s"})
    # The status speaks of the new generation: it was looked at after the budget had gone.
    wait_condition(namespace, "Paused", reason="Annotated")
    wait_ready(namespace)
    assert get("poddisruptionbudget", namespace, REDIS) is None
    assert "maxDelay: 5s" in _configuration(namespace)
    kubectl("annotate", "agentmemory", "research", "--namespace", namespace, "agentmemory.io/reconcile-")
    wait_condition(namespace, "Paused", status="False", reason="NotPaused")
    wait_for("the budget to be there again", lambda: declared(namespace, "poddisruptionbudget"))
    wait_for("the new setting to be given out", lambda: "maxDelay: 4s" in _configuration(namespace))


def _configuration(namespace: str) -> str:
    found = get("configmap", namespace, "research-sidecar")
    assert found is not None
    return str(found["data"]["agentmemory.yaml"])


def refused(namespace: str, reason: str, says: str) -> None:
    """The change is refused, in words, and what runs goes on."""
    said = wait_condition(namespace, "Progressing", status="False", reason=reason)
    assert says in said["message"]
    assert "What runs is left as it is." in said["message"]
    assert conditions(namespace)["Ready"]["status"] == "True"


def test_changes_that_cannot_be_done_are_refused_and_the_system_goes_on(namespace: str, memory: str) -> None:
    with pytest.raises(KubectlError, match="a volume cannot shrink"):
        edit(namespace, redis={"managed": {"storage": {"size": "32Mi"}}})
    with pytest.raises(KubectlError, match="shards cannot be changed"):
        edit(namespace, shards=8)
    edit(namespace, embedding={"provider": "Local"})
    wait_for("the other provider to be given out", lambda: "provider: Local" in _configuration(namespace))
    edit(namespace, embedding={"provider": "None"})
    wait_for("the former provider to be given out", lambda: "provider: None" in _configuration(namespace))
    settled(namespace)
    edit(namespace, mode="Redis", postgres=None)
    refused(namespace, "ModeChanged", "mode cannot change from Hybrid to Redis")
    assert "PostgresReady" in conditions(namespace)
    edit(namespace, mode="Hybrid", postgres=memory_manifest(namespace)["spec"]["postgres"])
    settled(namespace)
    edit(namespace, redis={"managed": {"storage": {"size": "96Mi"}}})
    refused(namespace, "StorageClassCannotExpand", "does not allow volumes to grow")
    kubectl("delete", "agentmemory", "research", "--namespace", namespace)
    small = {"managed": {"storage": {"size": "32Mi"}}}
    apply(memory_manifest(namespace, redis=small))
    refused(namespace, "StorageShrinks", "set storage.size to 64Mi or more")
    edit(namespace, redis={"managed": {"storage": {"size": "64Mi"}}})
    settled(namespace)
