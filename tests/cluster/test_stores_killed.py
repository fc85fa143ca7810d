"""Stores that are killed under load, one by one and both at once: nothing that was acknowledged is lost."""

from __future__ import annotations

import pytest

from support.cluster import Agent, kill_pod, settled, status_of, verify, wait_condition
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster


def test_redis_and_postgres_are_killed_under_load(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    for doomed in (["research-redis-0"], ["research-postgres-0"], ["research-redis-0", "research-postgres-0"]):
        writer.wait_for_more(8)
        for pod in doomed:
            kill_pod(namespace, pod)
        writer.wait_for_more(8)
    settled(namespace)
    writer.stop()
    assert verify(writer) >= 48
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
