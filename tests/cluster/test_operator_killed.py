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
INJECTOR = "app.kubernetes.io/component=injector,app.kubernetes.io/name=agentmemory"


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
    for milestone, reached in MILESTONES.items():
        deadline = time.monotonic() + 120
        while not reached(namespace):
            assert time.monotonic() < deadline, f"{milestone}: not reached"
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


def missing(namespace: str) -> float:
    """How many pods of the namespace lack a sidecar, as the leader's metrics have it; 0 where they tell of none."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
    said = kubectl("exec", leader(), "--namespace", SYSTEM, "--", "python3", "-c", ask)
    sample = f'agentmemory_pods_missing_sidecar{{agentmemory="research",namespace="{namespace}"}} '
    return next((float(line.split()[-1]) for line in said.splitlines() if line.startswith(sample)), 0.0)


def test_pods_that_are_made_while_the_injector_is_down_are_told(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    kubectl("scale", "deployment/agentmemory-injector", "--namespace", SYSTEM, "--replicas=0")
    try:
        wait_for("the injector to be gone", lambda: not pods(SYSTEM, INJECTOR))
        writer.deploy()
        pod = writer.pod()
    finally:
        kubectl("scale", "deployment/agentmemory-injector", "--namespace", SYSTEM, "--replicas=2")
    cluster.wait_condition(namespace, "SidecarsInjected", status="False", reason="SidecarMissing")
    said = f"involvedObject.name={pod},reason=SidecarMissing"
    wait_for(
        "the Event on the pod",
        lambda: kubectl_json("get", "events", "-n", namespace, "--field-selector", said)["items"],
    )
    wait_for("the metric", lambda: missing(namespace) == 1)
    kubectl("rollout", "status", "deployment/agentmemory-injector", "--namespace", SYSTEM, "--timeout=120s")
    kubectl("delete", "pod", pod, "--namespace", namespace)
    writer.wait_for_more()
    cluster.wait_condition(namespace, "SidecarsInjected")
    wait_for("the metric to be over", lambda: missing(namespace) == 0)
    writer.stop()
    verify(writer)


def served() -> set[str]:
    """The certificates that the injectors show, in PEM; the kubelet is asked to bring what the Secret holds."""
    cluster.bring_files(SYSTEM, INJECTOR)
    ask = "import ssl; print(ssl.get_server_certificate(('127.0.0.1', 8443)))"
    names = [pod["metadata"]["name"] for pod in pods(SYSTEM, INJECTOR)]
    return {kubectl("exec", name, "--namespace", SYSTEM, "--", "python3", "-c", ask).strip() for name in names}


def test_the_injectors_certificate_is_made_anew(namespace: str, memory: str) -> None:
    (before,) = served()
    kubectl("delete", "secret", "agentmemory-injector-tls", "--namespace", SYSTEM)

    def renewed() -> str | None:
        if get("secret", SYSTEM, "agentmemory-injector-tls") is None:
            return None
        now = cluster.secret(SYSTEM, "agentmemory-injector-tls")["tls.crt"].strip()
        return now if now != before else None

    after = wait_for("a new certificate", renewed)
    wait_for("the injectors to show it", lambda: served() == {after})
    writer = Agent(namespace)
    writer.start()
    writer.stop()
    assert writer.failures == []
    verify(writer)
