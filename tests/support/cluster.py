"""What tests on a real cluster share: the chart in it, memories, agents that write, and the check that all is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from support.kubectl import KubectlError, kubectl, kubectl_json

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
SYSTEM = "agentmemory-system"
RELEASE = "agentmemory"
IMAGES = {
    "image": os.environ.get("AGENTMEMORY_TEST_OPERATOR_IMAGE", "agentmemory/operator:dev"),
    "sidecarImage": os.environ.get("AGENTMEMORY_TEST_SIDECAR_IMAGE", "agentmemory/sidecar:dev"),
}
AGENT_IMAGE = os.environ.get("AGENTMEMORY_TEST_IMAGE", "python:3.13-slim")
RESYNC = 15
GRACE = 45
"""Seconds that a login works on after its successor was given out: short, since a test has the kubelet bring new files
at once (`bring_files`)."""
_LOOK_EVERY = 0.5

Object = dict[str, Any]


def image_values() -> list[str]:
    """The images under test, as options of helm."""
    options = []
    for name, image in IMAGES.items():
        repository, _, tag = image.rpartition(":")
        options += ["--set", f"{name}.repository={repository},{name}.tag={tag}"]
    return options


def install_chart(*options: str) -> None:
    """The chart of this checkout, with the images under test; an installation that is there is upgraded."""
    helm(
        "upgrade", "--install", RELEASE, str(ROOT / "helm" / "agentmemory"), "--namespace", SYSTEM,
        "--create-namespace", "--set", f"operator.resync={RESYNC},operator.rotationGrace={GRACE}", *image_values(),
        *_restarting(), "--wait", "--timeout", "5m", *options,
    )  # fmt: skip


def _restarting() -> list[str]:
    """Images of the same tag are other ones after a build: pods with another annotation are made anew."""
    mark = os.urandom(4).hex()
    # As a string: eight digits without a letter would be a number.
    options = (("--set-string", f"{name}.podAnnotations.test-run={mark}") for name in ("operator", "injector"))
    return [part for option in options for part in option]


def helm(*args: str, program: str = "helm") -> str:
    """What helm printed. Raises AssertionError with what it complained of."""
    done = subprocess.run((program, *args), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{program} {' '.join(args)}: {done.stderr}"
    return done.stdout


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 120.0) -> T:
    """Look again and again until there is something; fails with what was seen last."""
    deadline = time.monotonic() + seconds
    seen: object = None
    while True:
        try:
            found = look()
        except KubectlError as error:
            found, seen = None, error
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s{f'; {seen}' if seen else ''}"
        time.sleep(_LOOK_EVERY)


def apply(*manifests: Object) -> None:
    """Make or change objects, as a user does."""
    kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}))


def memory_manifest(namespace: str, name: str = "research", **spec: Any) -> Object:
    """A memory with managed stores, as small as can be."""
    small: Object = {
        "embedding": {"provider": "None"},
        "shards": 4,
        "redis": {"managed": {"storage": {"size": "64Mi"}, "persistence": {"appendfsync": "always"}}},
        "postgres": {"managed": {"storage": {"size": "256Mi"}}},
    }
    return {
        "apiVersion": "agentmemory.io/v1alpha1",
        "kind": "AgentMemory",
        "metadata": {"name": name, "namespace": namespace},
        "spec": small | spec,
    }


def get(kind: str, namespace: str, name: str) -> Object | None:
    """The object, or None."""
    with suppress(KubectlError):
        found: Object = kubectl_json("get", kind, name, "--namespace", namespace)
        return found
    return None


def conditions(namespace: str, name: str = "research") -> dict[str, Object]:
    """The conditions of a memory, by type."""
    body = get("agentmemory", namespace, name) or {}
    return {one["type"]: one for one in body.get("status", {}).get("conditions", [])}


def wait_condition(
    namespace: str, kind: str, *, status: str = "True", reason: str | None = None, name: str = "research",
    seconds: float = 120.0,
) -> Object:  # fmt: skip
    """The condition, once it has this status and reason, of the present generation."""
    last: dict[str, Object] = {}

    def look() -> Object | None:
        body = get("agentmemory", namespace, name) or {}
        last.clear()
        last.update({one["type"]: one for one in body.get("status", {}).get("conditions", [])})
        one = last.get(kind)
        if one is None or one["status"] != status or one["observedGeneration"] != body["metadata"]["generation"]:
            return None
        return one if reason in (None, one["reason"]) else None

    try:
        return wait_for(f"{kind}={status} {reason or ''} of {namespace}/{name}", look, seconds)
    except AssertionError as error:
        shown = {key: (one["status"], one["reason"], one["message"]) for key, one in last.items()}
        raise AssertionError(f"{error}; last seen: {json.dumps(shown, indent=1)}") from None


def wait_ready(namespace: str, name: str = "research", seconds: float = 180.0) -> None:
    """An event written now would be durable and recallable."""
    wait_condition(namespace, "Ready", name=name, seconds=seconds)


def settled(namespace: str, name: str = "research", seconds: float = 240.0) -> None:
    """Ready, and nothing under way."""
    wait_ready(namespace, name, seconds)
    wait_condition(namespace, "Progressing", status="False", reason="Settled", name=name, seconds=seconds)


def annotate(namespace: str, annotation: str, value: str, name: str = "research") -> None:
    kubectl(
        "annotate", "agentmemory", name, "--namespace", namespace, "--overwrite", f"agentmemory.io/{annotation}={value}"
    )


def status_of(namespace: str, name: str = "research") -> Object:
    body = get("agentmemory", namespace, name)
    assert body is not None
    return dict(body.get("status", {}))


def pods(namespace: str, selector: str) -> list[Object]:
    return list(kubectl_json("get", "pods", "--namespace", namespace, "--selector", selector)["items"])


def kill_pod(namespace: str, name: str) -> None:
    """End its processes with SIGKILL, and the pod."""
    kubectl("delete", "pod", name, "--namespace", namespace, "--grace-period=0", "--force", "--ignore-not-found",
            check=False)  # fmt: skip


_SCRIPT = (Path(__file__).parent / "agent_program.py").read_text()


def agent_pod_spec(args: Sequence[str], *, restart: str = "Always") -> Object:
    """A pod that runs the script, fit for the restricted profile."""
    return {
        "restartPolicy": restart,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "agent",
                "image": AGENT_IMAGE,
                "command": ["python3", "-u", "-c", _SCRIPT, *args],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "resources": {"requests": {"cpu": "5m", "memory": "24Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
            }
        ],
    }


class Agent:
    """A Deployment of one pod that writes numbered turns; what it was answered is kept when its pods are gone."""

    def __init__(
        self, namespace: str, agent: str = "writer", *, memory: str = "research", pause: float = 0.25,
        annotations: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.namespace = namespace
        self.agent = agent
        self.memory = memory
        self._pause = pause
        self._annotations = dict(annotations or {})
        self._lines: list[str] = []
        self._followed: set[str] = set()
        self._over = threading.Event()

    @property
    def selector(self) -> str:
        return f"test-agent={self.agent}"

    def start(self) -> None:
        """Make it; turns are acknowledged when this returns."""
        self.deploy()
        self.wait_for_more()

    def deploy(self) -> None:
        """Make it, and follow what its pods say."""
        labels = {"test-agent": self.agent}
        asks = {"agentmemory.io/inject": self.memory}
        spec = agent_pod_spec(["write", self.agent, str(self._pause)])
        apply(
            {
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": self.agent, "namespace": self.namespace},
                "spec": {
                    "replicas": 1, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels | asks, "annotations": self._annotations}, "spec": spec},
                },
            }
        )  # fmt: skip
        threading.Thread(target=self._follow_all, daemon=True).start()

    def _follow_all(self) -> None:
        while not self._over.is_set():
            with suppress(KubectlError, subprocess.TimeoutExpired):
                for pod in pods(self.namespace, self.selector):
                    name = pod["metadata"]["name"]
                    started = [one for one in pod.get("status", {}).get("containerStatuses", []) if one.get("started")]
                    if started and name not in self._followed:
                        self._followed.add(name)
                        threading.Thread(target=self._follow, args=(name,), daemon=True).start()
            time.sleep(_LOOK_EVERY)

    def _follow(self, pod: str) -> None:
        command = ("kubectl", "logs", "--follow", "--namespace", self.namespace, pod, "--container", "agent")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            self._lines += (line.rstrip("\n") for line in process.stdout)
        # Cut off with the API server, it is followed anew; what is read twice counts once.
        if not self._over.is_set():
            self._followed.discard(pod)

    def stop(self) -> None:
        """Scale it to zero; its pods are gone when this returns."""
        self.scale(0)
        wait_for(f"the pods of {self.agent} to go", lambda: not pods(self.namespace, self.selector))
        self._over.set()

    def scale(self, replicas: int) -> None:
        kubectl("scale", f"deployment/{self.agent}", "--namespace", self.namespace, f"--replicas={replicas}")

    def pod(self) -> str:
        """The name of its pod."""
        return wait_for(
            f"a pod of {self.agent}",
            lambda: next(
                (str(one["metadata"]["name"]) for one in pods(self.namespace, self.selector)
                 if not one["metadata"].get("deletionTimestamp")), None,
            ),
        )  # fmt: skip

    @property
    def acknowledged(self) -> set[int]:
        """The numbers of the turns that were acknowledged."""
        found = (re.fullmatch(r"ack (\d+) \S+", line) for line in list(self._lines))
        return {int(match[1]) for match in found if match}

    @property
    def failures(self) -> list[str]:
        """The answers that were no acknowledgement, as `503 journal-full`."""
        return [line.partition(" ")[2] for line in list(self._lines) if line.startswith(("failed", "refused"))]

    @property
    def woke(self) -> list[int]:
        """At which number each of its pods went on."""
        return [int(line.split()[1]) for line in list(self._lines) if line.startswith("woke ")]

    def wait_for_more(self, count: int = 3, seconds: float = 180.0) -> None:
        """Until so many more turns are acknowledged."""
        goal = max(self.acknowledged, default=0) + count
        wait_for(f"{count} more turns of {self.agent}", lambda: max(self.acknowledged, default=0) >= goal, seconds)


def read_timeline(namespace: str, agent: str, memory: str = "research") -> list[str]:
    """The whole timeline of an agent, as a fresh pod with a sidecar reads it once all of it is durable."""
    name = f"read-{agent}-{os.urandom(3).hex()}"
    labels = {"agentmemory.io/inject": memory}
    apply({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": agent_pod_spec(["read", agent], restart="Never"),
    })  # fmt: skip

    def look() -> str | None:
        said = kubectl("logs", name, "--namespace", namespace, "--container", "agent")
        return next((line for line in said.splitlines() if line.startswith("timeline ")), None)

    line = wait_for(f"{name} to read the timeline", look, 180.0)
    kubectl("delete", "pod", name, "--namespace", namespace, "--wait=false")
    return list(json.loads(line.partition(" ")[2]))


def verify(writer: Agent) -> int:
    """Every acknowledged turn is there once, in order, and nothing that was not written; answers how many there are."""
    acknowledged = writer.acknowledged
    numbers = [int(text.split()[-1]) for text in read_timeline(writer.namespace, writer.agent, writer.memory)]
    assert acknowledged - set(numbers) == set(), "acknowledged turns are lost"
    assert len(numbers) == len(set(numbers)), "turns are doubled"
    assert numbers == sorted(numbers), "turns are out of order"
    assert set(numbers) == set(range(1, len(numbers) + 1)), "there are turns that were never written, or gaps"
    return len(numbers)


def bring_files(namespace: str, selector: str = "agentmemory.io/sidecar") -> None:
    """Have the kubelet bring changed files into pods now, which it does whenever a pod changes; else in a minute."""
    kubectl("annotate", "pods", "--namespace", namespace, "--selector", selector, "--overwrite",
            f"test/files={os.urandom(3).hex()}")  # fmt: skip


def life(namespace: str, name: str) -> dict[str, tuple[str, int]]:
    """Which pod it is and how often it was restarted, by container."""
    pod = get("pod", namespace, name)
    assert pod is not None, f"no pod {name}"
    status = pod["status"]
    found = status.get("initContainerStatuses", []) + status["containerStatuses"]
    return {one["name"]: (pod["metadata"]["uid"], one["restartCount"]) for one in found}


def secret(namespace: str, name: str) -> dict[str, str]:
    """The members of a Secret, as text."""
    body = get("secret", namespace, name)
    assert body is not None, f"no Secret {name}"
    return {key: b64decode(value).decode() for key, value in body["data"].items()}


def redis_cli(namespace: str, *command: str, memory: str = "research") -> str:
    """What the Redis of a memory answers to its administrator."""
    script = (
        'export REDISCLI_AUTH="$(cat /etc/agentmemory/admin/password)"; '
        'exec redis-cli --tls --insecure --user operator "$@"'
    )
    return kubectl(
        "exec", f"{memory}-redis-0", "--namespace", namespace, "--", "sh", "-c", script, "redis-cli", *command
    )


def sql(namespace: str, statement: str, *, memory: str = "research", database: str = "agentmemory") -> str:
    """What the Postgres of a memory answers to its superuser, a row a line."""
    script = (
        'PGPASSWORD="$(cat /etc/agentmemory/admin/password)" '
        'exec psql -h /run/postgresql -U postgres -d "$1" -XqtA -v ON_ERROR_STOP=1 -c "$2"'
    )
    return kubectl(
        "exec", f"{memory}-postgres-0", "--namespace", namespace, "--", "sh", "-c", script, "psql", database, statement
    ).strip()


def node(*command: str) -> str:
    """Do something to a part of the node: `kill kube-apiserver`. Skips the test where nothing can."""
    program = os.environ.get("AGENTMEMORY_NODE")
    if not program:
        pytest.skip("AGENTMEMORY_NODE names no command that kills and starts parts of the node")
    done = subprocess.run((program, *command), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
