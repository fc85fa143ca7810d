"""The operator dies in the middle of things, and another one goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from support import cluster
from support.cluster import (
    SYSTEM,
    Agent,
    apply,
    conditions,
    get,
    kill_pod,
    memory_manifest,
    pods,
    settled,
    sql,
    verify,
    wait_for,
)
from support.kubectl import kubectl, kubectl_json

pytestmark = [pytest.mark.cluster, pytest.mark.disruptive]

OPERATOR = "app.kubernetes.io/component=operator,app.kubernetes.io/name=agentmemory"


def there(kind: str, name: str) -> Callable[[str], bool]:
    return lambda namespace: get(kind, namespace, name) is not None


def holds(kind: str) -> Callable[[str], bool]:
    return lambda namespace: conditions(namespace).get(kind, {}).get("status") == "True"


MILESTONES = {
    "the authority": there("secret", "research-ca"), "a login": there("secret", "research-redis-admin"),
    "a certificate": there("secret", "research-redis-tls"), "Redis": there("statefulset", "research-redis"),
    "Postgres": there("statefulset", "research-postgres"), "the settings": there("configmap", "research-sidecar"),
    "Redis ready": holds("RedisReady"), "Postgres ready": holds("PostgresReady"), "the schema": holds("SchemaReady"),
}  # fmt: skip


def kill_operators() -> None:
    for pod in pods(SYSTEM, OPERATOR):
        kill_pod(SYSTEM, pod["metadata"]["name"])


def test_killed_at_every_step_of_a_provisioning(namespace: str) -> None:
    apply(memory_manifest(namespace))
    for reached in MILESTONES.values():
        deadline = time.monotonic() + 120
        while not reached(namespace):
            assert time.monotonic() < deadline, cluster.diagnose(namespace)
        kill_operators()
    settled(namespace)
    logins = sql(namespace, "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'am\\_%'")
    assert logins == "1", "nothing is made twice"
    writer = Agent(namespace)
    writer.start()
    writer.wait_for_more(5)
    writer.stop()
    verify(writer)


def leader() -> str:
    lease = kubectl_json("get", "lease", "agentmemory-operator", "--namespace", SYSTEM)
    return str(lease["spec"].get("holderIdentity") or "")


def test_a_leader_that_is_killed_is_followed(namespace: str) -> None:
    first = wait_for("a leader", leader)
    kill_pod(SYSTEM, first)
    wait_for("another leader", lambda: leader() not in ("", first), 60.0)
    apply(memory_manifest(namespace))
    settled(namespace)


def test_pods_that_are_made_while_the_injector_is_down_are_told(namespace: str, memory: str) -> None:
    kubectl("scale", "deployment/agentmemory-injector", "--namespace", SYSTEM, "--replicas=0")
    try:
        wait_for("the injector to be gone", lambda: not pods(SYSTEM, "app.kubernetes.io/component=injector"))
        labels = {"agentmemory.io/inject": "research"}
        spec = cluster.agent_pod_spec([])
        spec["containers"][0]["command"] = ["sleep", "3600"]
        metadata = {"name": "left-out", "namespace": namespace, "labels": labels}
        apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    finally:
        kubectl("scale", "deployment/agentmemory-injector", "--namespace", SYSTEM, "--replicas=2")
    cluster.wait_condition(namespace, "SidecarsInjected", status="False", reason="SidecarMissing")
    said = "involvedObject.name=left-out,reason=SidecarMissing"
    wait_for(
        "the Event on the pod",
        lambda: kubectl_json("get", "events", "-n", namespace, "--field-selector", said)["items"],
    )
    kubectl("rollout", "status", "deployment/agentmemory-injector", "--namespace", SYSTEM, "--timeout=120s")
    kubectl("delete", "pod", "left-out", "--namespace", namespace, "--grace-period=0", "--force")
    cluster.wait_condition(namespace, "SidecarsInjected")


def test_the_injectors_certificate_is_made_anew(namespace: str, memory: str) -> None:
    before = cluster.secret(SYSTEM, "agentmemory-injector-tls")["tls.crt"]
    kubectl("delete", "secret", "agentmemory-injector-tls", "--namespace", SYSTEM)

    def renewed() -> bool:
        found = get("secret", SYSTEM, "agentmemory-injector-tls")
        return found is not None and cluster.secret(SYSTEM, "agentmemory-injector-tls")["tls.crt"] != before

    wait_for("a new certificate", renewed)
    writer = Agent(namespace)
    writer.start()
    writer.stop()
    verify(writer)
