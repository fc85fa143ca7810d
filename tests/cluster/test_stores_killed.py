"""Stores that are killed under load, one by one and both at once: nothing that was acknowledged is lost."""

from __future__ import annotations

import pytest

from support.cluster import Agent, get, kill_pod, settled, status_of, verify, wait_condition, wait_for
from support.kubectl import kubectl
from support.signals import Signals

pytestmark = pytest.mark.cluster

STORES = ("redis", "postgres")
BY_SIGKILL = 128 + 9


def ended_with(namespace: str, store: str) -> int | None:
    """How the store's last process ended, once another one runs in its place."""
    pod = get("pod", namespace, f"research-{store}-0") or {}
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["ready"] and container["lastState"]:
            return int(container["lastState"]["terminated"]["exitCode"])
    return None


def uid(namespace: str, store: str) -> str:
    pod = get("pod", namespace, f"research-{store}-0")
    return str(pod["metadata"]["uid"]) if pod else ""


def test_redis_and_postgres_are_killed_under_load(namespace: str, memory: str, signals: Signals) -> None:
    writer = Agent(namespace)
    writer.start()
    for store in STORES:
        writer.wait_for_more(8)
        signals.send("KILL", namespace, f"research-{store}-0", store)
        code = wait_for(f"{store} to start again", lambda store=store: ended_with(namespace, store))  # type: ignore[misc]
        assert code == BY_SIGKILL
    writer.wait_for_more(8)
    settled(namespace)
    writer.stop()
    assert verify(writer) >= 27
    assert status_of(namespace)["consolidation"]["deadLetters"] == 0


def test_both_are_deleted_with_their_pods_under_load(namespace: str, memory: str, signals: Signals) -> None:
    """They are frozen first: told to stop, neither can put anything in order before it is killed."""
    writer = Agent(namespace)
    writer.start()
    before = {store: uid(namespace, store) for store in STORES}
    writer.wait_for_more(8)
    for store in STORES:
        signals.send("STOP", namespace, f"research-{store}-0", store)
    for store in STORES:
        kill_pod(namespace, f"research-{store}-0")
    for store in STORES:
        wait_for(f"another pod of {store}", lambda store=store: uid(namespace, store) not in ("", before[store]))  # type: ignore[misc]
    writer.wait_for_more(8)
    settled(namespace)
    writer.stop()
    assert verify(writer) >= 19
    assert status_of(namespace)["consolidation"]["deadLetters"] == 0


def test_a_store_that_is_away_is_said(namespace: str, memory: str) -> None:
    """Deleted as a whole, a store is made anew on its volume; meanwhile nobody is told that all is well."""
    writer = Agent(namespace)
    writer.start()
    kubectl("annotate", "agentmemory", "research", "--namespace", namespace, "agentmemory.io/reconcile=disabled")
    kubectl("delete", "statefulset", "research-postgres", "--namespace", namespace)
    wait_condition(namespace, "PostgresReady", status="False")
    wait_condition(namespace, "Ready", status="False")
    writer.wait_for_more(5)
    kubectl("annotate", "agentmemory", "research", "--namespace", namespace, "agentmemory.io/reconcile-")
    settled(namespace)
    writer.wait_for_more(5)
    writer.stop()
    verify(writer)
