"""Signals to what runs in a container, sent from its node: the first process of a container is deaf to SIGKILL from
within, and a pod that is deleted by force is first told to stop, and has two seconds for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from support.cluster import AGENT_IMAGE, Object, apply, get
from support.kubectl import kubectl

_SEND = """
import os, signal, sys
from pathlib import Path
number, container, found = signal.Signals["SIG" + sys.argv[1]], sys.argv[2], 0
for group in Path("/proc").glob("[0-9]*/cgroup"):
    try:
        if container in group.read_text():
            os.kill(int(group.parent.name), number)
            found += 1
    except (FileNotFoundError, ProcessLookupError):
        pass
sys.exit(None if found else "no process is in it")
"""


class Signals:
    """A pod on each node where it is needed, which sees all processes of the node."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._nodes: set[str] = set()

    def send(self, signal: Literal["KILL", "STOP"], namespace: str, pod: str, container: str) -> None:
        """Send it to every process of the container. Raises KubectlError where there is none."""
        body = get("pod", namespace, pod)
        assert body is not None, f"no pod {pod}"
        node = str(body["spec"]["nodeName"])
        self._reach(node)
        kubectl(
            "exec", node, "--namespace", self._namespace, "--", "python3", "-c", _SEND, signal,
            container_id(body, container),
        )  # fmt: skip

    def _reach(self, node: str) -> None:
        if node in self._nodes:
            return
        spec = {
            "nodeName": node, "hostPID": True, "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}], "automountServiceAccountToken": False,
            "containers": [{"name": "hand", "image": AGENT_IMAGE, "command": ["sleep", "infinity"]}],
        }  # fmt: skip
        metadata = {"name": node, "namespace": self._namespace}
        apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        kubectl("wait", f"pod/{node}", "--namespace", self._namespace, "--for=condition=Ready", "--timeout=120s")
        self._nodes.add(node)


def container_id(pod: Object, container: str) -> str:
    """As its runtime calls it."""
    status = pod["status"]
    found = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    return next(str(one["containerID"]).rpartition("//")[2] for one in found if one["name"] == container)


@contextmanager
def sender() -> Iterator[Signals]:
    """In a namespace of its own, that is under no profile."""
    namespace = f"test-signals-{os.urandom(3).hex()}"
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged")
    try:
        yield Signals(namespace)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
