"""Parts of the node are away under load: agents and their memory go on without the control plane."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from agentmemory_engine.keys import Keys
from support.cluster import (
    SYSTEM,
    Agent,
    apply,
    life,
    memory_manifest,
    node,
    pods,
    settled,
    sql,
    verify,
    wait_for,
    wait_ready,
)
from support.kubectl import kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.disruptive]

AWAY = 30.0
"""Seconds for which a part of the node is away: longer than a leader may go without renewing its Lease."""


def without(part: str) -> tuple[datetime, datetime]:
    """Kill a part of the node, and start it again after a while; answers from when until when it was away."""
    node("kill", part)
    gone, over = datetime.now(UTC), time.monotonic() + AWAY
    try:
        wait_for(f"{AWAY:g} s without {part}", lambda: time.monotonic() > over)
        return gone, datetime.now(UTC)
    finally:
        node("start", part)


def accepted(writer: Agent, start: datetime, end: datetime) -> int:
    """How many turns of the agent were accepted between two points in time, as Postgres has it.

    Its log cannot tell: nobody takes down what a container says while containerd is away.
    """
    table = f"{Keys(writer.namespace, writer.memory).schema}.memory_events"
    between = f"accepted_at BETWEEN '{start.isoformat()}' AND '{end.isoformat()}'"
    return int(sql(writer.namespace, f"SELECT count(*) FROM {table} WHERE agent_id = '{writer.agent}' AND {between}"))


def restarts() -> dict[str, int]:
    """How often operators and injectors were restarted, by pod."""
    found = (str(pod["metadata"]["name"]) for pod in pods(SYSTEM, "app.kubernetes.io/name=agentmemory"))
    return {name: sum(count for _, count in life(SYSTEM, name).values()) for name in found}


def test_agents_write_on_while_the_api_server_is_away(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    pod = writer.pod()
    lives, before = life(namespace, pod), restarts()
    outage = without("kube-apiserver")
    wait_for("the API server", lambda: kubectl("get", "--raw", "/readyz") == "ok")
    apply(memory_manifest(namespace, "another"))
    wait_ready(namespace, "another")
    assert life(namespace, pod) == lives
    after = restarts()
    assert set(after) == set(before)
    assert sum(after.values()) - sum(before.values()) <= 1, "the leader begins anew, nobody else, and once"
    writer.wait_for_more()
    wait_for("what was written meanwhile", lambda: accepted(writer, *outage) > AWAY)
    writer.stop()
    assert writer.failures == []
    verify(writer)


def test_agents_write_on_while_containerd_is_away(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    names = ["research-redis-0", "research-postgres-0", writer.pod()]
    lives = {name: life(namespace, name) for name in names}
    outage = without("containerd")
    wait_for("the node to be ready", lambda: "True" in kubectl(
        "get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    ))  # fmt: skip
    writer.wait_for_more(10)
    assert {name: life(namespace, name) for name in names} == lives
    settled(namespace)
    wait_for("what was written meanwhile", lambda: accepted(writer, *outage) > AWAY)
    writer.stop()
    assert writer.failures == []
    verify(writer)
