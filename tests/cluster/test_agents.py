"""Agents that come, go and are killed: what is pending when the last one dies reaches Postgres all the same."""

from __future__ import annotations

import pytest

from support.cluster import (
    Agent,
    annotate,
    apply,
    get,
    kill_pod,
    memory_manifest,
    pods,
    settled,
    status_of,
    verify,
    wait_for,
    wait_ready,
)
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster


def test_the_last_agent_is_killed_and_a_job_drains_what_is_pending(namespace: str) -> None:
    """Postgres is away meanwhile, so that no sidecar can flush, however quickly it is told to stop."""
    apply(memory_manifest(namespace))
    wait_ready(namespace)
    writer = Agent(namespace, pause=0.1)
    writer.start()
    annotate(namespace, "reconcile", "disabled")
    kubectl("scale", "statefulset/research-postgres", "--namespace", namespace, "--replicas=0")
    wait_for("Postgres to be gone", lambda: get("pod", namespace, "research-postgres-0") is None)
    writer.wait_for_more(20)
    pod = writer.pod()
    kubectl("delete", "deployment", writer.agent, "--namespace", namespace, "--cascade=orphan")
    kubectl("delete", "replicasets", "--all", "--namespace", namespace, "--cascade=orphan")
    kill_pod(namespace, pod)
    wait_for("no pod to be left", lambda: not pods(namespace, writer.selector))

    wait_for("entries to be pending", lambda: status_of(namespace).get("consolidation", {}).get("pending"), 60.0)
    annotate(namespace, "reconcile", "enabled")
    wait_for("the drain", lambda: get("job", namespace, "research-drain"), 120.0)
    wait_for("the journal to be empty", lambda: status_of(namespace)["consolidation"].get("pending") == 0, 120.0)
    wait_for("the status to tell of it", lambda: "emptied" in status_of(namespace).get("drain", {}).get("message", ""))
    settled(namespace)
    assert verify(writer) >= 10


def test_an_agent_is_scaled_to_zero_and_back(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    writer.wait_for_more(10)
    writer.scale(0)
    wait_for("the agent to be gone", lambda: not pods(namespace, writer.selector))
    last = max(writer.acknowledged)
    settled(namespace)
    assert status_of(namespace)["consolidation"]["pending"] == 0, "a sidecar that is told to stop flushes"
    assert status_of(namespace)["sidecars"] == {"injected": 0, "missing": 0}
    assert get("job", namespace, "research-drain") is None
    writer.scale(1)
    writer.wait_for_more(5)
    assert writer.woke[-1] >= last
    writer.stop()
    verify(writer)
