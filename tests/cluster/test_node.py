"""Parts of the node die under load: agents and their memory go on without the control plane."""

from __future__ import annotations

import pytest

from support.cluster import Agent, apply, memory_manifest, node, pods, settled, verify, wait_for, wait_ready
from support.kubectl import kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.disruptive]


def test_agents_write_on_while_the_api_server_is_away(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    pod = writer.pod()
    node("kill", "kube-apiserver")
    node("start", "kube-apiserver")
    wait_for("the API server", lambda: kubectl("get", "--raw", "/readyz") == "ok")
    writer.wait_for_more(10)
    assert writer.pod() == pod
    apply(memory_manifest(namespace, "another"))
    wait_ready(namespace, "another")
    writer.stop()
    assert writer.failures == []
    verify(writer)


def test_nothing_is_lost_when_containerd_dies(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    lives = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods(namespace, "agentmemory.io/memory")}
    node("kill", "containerd")
    node("start", "containerd")
    wait_for("the node to be ready", lambda: "True" in kubectl(
        "get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    ))  # fmt: skip
    writer.wait_for_more(10)
    assert {
        pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods(namespace, "agentmemory.io/memory")
    } == lives
    settled(namespace)
    writer.stop()
    verify(writer)
