"""What is kept of a test on a cluster that fails."""

from __future__ import annotations

from support.cluster import SYSTEM
from support.kubectl import kubectl


def diagnose(namespace: str) -> str:
    """All that helps to understand a failure."""
    commands = [
        ("get", "pods,jobs,statefulsets,deployments,pvc,services", "-o", "wide", "-n", namespace),
        ("get", "agentmemories", "-o", "yaml", "-n", namespace),
        ("get", "events", "--sort-by=.lastTimestamp", "-n", namespace),
        ("describe", "pods", "-n", namespace),
        ("get", "pods", "-n", SYSTEM),
        ("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--tail=60", "--prefix"),
        ("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=injector", "--tail=20", "--prefix"),
        ("logs", "-n", namespace, "-l", "agentmemory.io/sidecar", "--all-containers", "--tail=30", "--prefix"),
        ("logs", "-n", namespace, "-l", "agentmemory.io/memory", "--all-containers", "--tail=30", "--prefix"),
    ]
    return "\n".join(f"$ kubectl {' '.join(command)}\n{kubectl(*command, check=False)}" for command in commands)
