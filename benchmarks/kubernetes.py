"""Times on a test cluster on which the chart is installed: `python -m benchmarks.kubernetes`.

How long it takes from an AgentMemory to Ready, from a pod to its first answer, and what the sidecar adds to its start.
The images have to be on the nodes already. Every namespace it makes is deleted again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import describe_machine

Object = dict[str, Any]
_IMAGE = "python:3.13-slim"
_PATIENCE = 180.0
_SCRIPT = """
import json, os, time, urllib.request
print("started", time.time(), flush=True)
url = os.environ.get("AGENTMEMORY_URL")
while url:
    body = json.dumps({"events": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"AgentMemory-Client": "benchmark", "Content-Type": "application/json"}
    try:
        urllib.request.urlopen(urllib.request.Request(url + "/v1/agents/a/turns", body, headers), timeout=5).read()
        print("answered", time.time(), flush=True)
        break
    except OSError:
        time.sleep(0.01)
"""


def main() -> None:
    """Measure, and print a table; exits with 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kubernetes", description=__doc__)
    parser.add_argument("--memories", type=int, default=5, help="how many AgentMemories, one after the other (5)")
    parser.add_argument("--pods", type=int, default=10, help="how many pods of each kind, by turns (10)")
    options = parser.parse_args()
    try:
        with _namespace() as namespace:
            ready = [_time_memory(namespace, number) for number in _progress(options.memories, "memories")]
            pods = [_time_pods(namespace, number) for number in _progress(options.pods, "pods")]
    except (BenchmarkFailed, OSError, subprocess.CalledProcessError) as error:
        Console(stderr=True).print(f"benchmarks: {error}", style="red", markup=False)
        sys.exit(1)
    _show(ready, pods)


def _progress(count: int, what: str) -> Iterator[int]:
    yield from track(range(count), description=what, console=Console(stderr=True))


def _show(ready: Sequence[float], pods: Sequence[Object]) -> None:
    table = Table("measure", "median", "from", "to", title="On Kubernetes, in seconds")
    rows = {
        "AgentMemory applied to Ready, managed stores": ready,
        "pod created to its container's start, without a sidecar": [one["plain"] for one in pods],
        "pod created to its container's start, with a sidecar": [one["started"] for one in pods],
        "what the sidecar adds to that, pair by pair": [one["started"] - one["plain"] for one in pods],
        "pod created to the first turn acknowledged": [one["answered"] for one in pods],
    }
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(values), min(values), max(values))))
    console = Console()
    console.print(table)
    console.print("; ".join(f"{name}: {value}" for name, value in describe_machine().items()), soft_wrap=True)


@contextmanager
def _namespace() -> Iterator[str]:
    name = f"bench-{os.urandom(3).hex()}"
    _kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        _kubectl("delete", "namespace", name, "--wait=false")


def _time_memory(namespace: str, number: int) -> float:
    name = f"memory-{number}"
    manifest = {
        "apiVersion": "agentmemory.io/v1alpha1", "kind": "AgentMemory",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "embedding": {"provider": "None"},
            "redis": {"managed": {"storage": {"size": "64Mi"}}},
            "postgres": {"managed": {"storage": {"size": "256Mi"}}},
        },
    }  # fmt: skip
    begun = time.time()
    _apply(manifest)
    _kubectl("wait", f"agentmemory/{name}", "--for=condition=Ready", f"--timeout={_PATIENCE:.0f}s", namespace=namespace)
    return time.time() - begun


def _time_pods(namespace: str, number: int) -> Object:
    """Seconds from the creation of a pod: of a plain one, and of one with a sidecar."""
    plain = _time_pod(namespace, f"plain-{number}", {})
    with_sidecar = _time_pod(namespace, f"agent-{number}", {"agentmemory.io/inject": "memory-0"})
    return with_sidecar | {"plain": plain["started"]}


def _time_pod(namespace: str, name: str, labels: dict[str, str]) -> Object:
    manifest = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "agent", "image": _IMAGE, "command": ["python3", "-u", "-c", _SCRIPT]}],
        },
    }  # fmt: skip
    begun = time.time()
    _apply(manifest)
    last = "answered" if labels else "started"
    lines = _until(lambda: _lines(namespace, name), lambda lines: last in lines, f"pod {name}")
    _kubectl("delete", "pod", name, "--wait=false", namespace=namespace)
    return {word: at - begun for word, at in lines.items()}


def _lines(namespace: str, name: str) -> dict[str, float]:
    """What the pod said, and when it was."""
    done = subprocess.run(
        ("kubectl", "logs", name, "--container", "agent", "--namespace", namespace), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return {word: float(at) for word, _, at in (line.partition(" ") for line in done.stdout.splitlines()) if at}


def _until(
    look: Callable[[], dict[str, float]], holds: Callable[[dict[str, float]], bool], what: str
) -> dict[str, float]:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if holds(found):
            return found
        time.sleep(0.1)
    raise BenchmarkFailed(f"{what} did not come so far within {_PATIENCE:.0f} s")


def _apply(manifest: Object) -> None:
    _kubectl("apply", "--filename", "-", input=json.dumps(manifest))


def _kubectl(*args: str, namespace: str | None = None, input: str | None = None) -> None:
    where = ("--namespace", namespace) if namespace else ()
    done = subprocess.run(("kubectl", *args, *where), input=input, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"kubectl {args[0]}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
