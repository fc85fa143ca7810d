"""What a new user does: a memory, an agent, and the agent's next pod remembers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.cluster import kill_pod, pods, wait_for, wait_ready
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
_AGENT = "app=agent"


def said(namespace: str, pod: str) -> str:
    return kubectl("logs", pod, "--namespace", namespace, "--container", "agent", check=False)


def running_pod(namespace: str, *, other_than: str = "") -> str:
    return wait_for(
        "a pod of the agent that works",
        lambda: next(
            (
                name
                for name in (str(pod["metadata"]["name"]) for pod in pods(namespace, _AGENT))
                if name != other_than and "acknowledged" in said(namespace, name)
            ),
            None,
        ),
        180.0,
    )


def test_an_agent_writes_loses_its_pod_and_remembers(namespace: str) -> None:
    kubectl("apply", "--namespace", namespace, "--filename", str(EXAMPLES / "agentmemory.yaml"))
    kubectl("apply", "--namespace", namespace, "--filename", str(EXAMPLES / "agent.yaml"))
    wait_ready(namespace)
    first = running_pod(namespace)
    assert "woke up at step 0, with 0 recent messages" in said(namespace, first)
    kill_pod(namespace, first)
    second = running_pod(namespace, other_than=first)
    woke = re.search(r"woke up at step (\d+), with (\d+) recent messages", said(namespace, second))
    assert woke is not None
    assert int(woke[1]) >= 1
    assert int(woke[2]) == int(woke[1]), "every step is remembered, and none twice"


def test_the_container_knows_nothing_but_the_url(namespace: str) -> None:
    for file in ("agentmemory.yaml", "agent.yaml"):
        kubectl("apply", "--namespace", namespace, "--filename", str(EXAMPLES / file))
    pod = running_pod(namespace)
    environment = kubectl("exec", pod, "--namespace", namespace, "--container", "agent", "--", "env")
    ours = [line for line in environment.splitlines() if "AGENTMEMORY" in line or "RESEARCH" in line]
    assert [line for line in ours if not line.startswith("RESEARCH_")] == ["AGENTMEMORY_URL=http://127.0.0.1:7070"]
    mounted = kubectl("exec", pod, "--namespace", namespace, "--container", "agent", "--", "ls", "/etc", "/tmp")
    assert "agentmemory" not in mounted
