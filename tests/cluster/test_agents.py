"""Agents that come, go and are killed: what is pending when the last one dies reaches Postgres all the same."""

from __future__ import annotations

import pytest

from agentmemory_engine.keys import Keys
from support.cluster import (
    Agent,
    apply,
    get,
    kill_pod,
    memory_manifest,
    pods,
    settled,
    sql,
    status_of,
    verify,
    wait_for,
    wait_ready,
)
from support.kubectl import kubectl
from support.signals import Signals

pytestmark = pytest.mark.cluster


def arrived(writer: Agent) -> int:
    """How many turns of the agent are in Postgres."""
    schema = Keys(writer.namespace, writer.memory).schema
    return int(sql(writer.namespace, f"SELECT count(*) FROM {schema}.memory_events WHERE agent_id = '{writer.agent}'"))


def test_the_last_agent_is_killed_and_a_job_drains_what_is_pending(namespace: str, signals: Signals) -> None:
    """Its sidecar is frozen before it is told to stop, so that it flushes nothing, and is killed."""
    apply(memory_manifest(namespace, consolidation={"maxDelay": "12s"}))
    wait_ready(namespace)
    writer = Agent(namespace, pause=0.1)
    writer.start()
    writer.wait_for_more(20)
    pod = writer.pod()
    signals.send("STOP", namespace, pod, "agentmemory")
    kubectl("delete", "deployment", writer.agent, "--namespace", namespace, "--cascade=orphan")
    kubectl("delete", "replicasets", "--all", "--namespace", namespace, "--cascade=orphan")
    kill_pod(namespace, pod)
    wait_for("no pod to be left", lambda: not pods(namespace, writer.selector))
    assert arrived(writer) < max(writer.acknowledged), "entries are pending"

    wait_for("the status to count them", lambda: status_of(namespace).get("consolidation", {}).get("pending"), 60.0)
    wait_for("the drain", lambda: get("job", namespace, "research-drain"), 120.0)
    wait_for("the journal to be empty", lambda: status_of(namespace)["consolidation"].get("pending") == 0, 120.0)
    wait_for("the status to tell of it", lambda: "emptied" in status_of(namespace).get("drain", {}).get("message", ""))
    assert arrived(writer) >= max(writer.acknowledged)
    settled(namespace)
    verify(writer)


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
