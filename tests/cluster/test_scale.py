"""A hundred memories become ready, and then nothing is written: counted by the API server itself."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter

import pytest

from support.cluster import RESYNC, SYSTEM, apply, wait_for
from support.external_stores import start_stores
from support.kubectl import kubectl, kubectl_json

pytestmark = [pytest.mark.cluster, pytest.mark.scale]

COUNT = 100
_OURS = {
    "agentmemories", "secrets", "configmaps", "statefulsets", "deployments", "jobs", "networkpolicies",
    "poddisruptionbudgets", "persistentvolumeclaims",
}  # fmt: skip
_WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}
_REQUEST = re.compile(r"apiserver_request_total\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def requests() -> Counter[tuple[str, str]]:
    """How many requests the API server has had, by verb and resource; watches and the Lease are not counted."""
    found: Counter[tuple[str, str]] = Counter()
    for line in kubectl("get", "--raw", "/metrics").splitlines():
        if match := _REQUEST.fullmatch(line):
            labels = dict(_LABEL.findall(match[1]))
            ours = labels["resource"] in _OURS or (labels["resource"], labels["group"]) == ("events", "events.k8s.io")
            if ours and labels["verb"] != "WATCH":
                found[labels["verb"], labels["resource"]] += int(float(match[2]))
    return found


def ready() -> int:
    """How many AgentMemories there are that are ready."""
    items = kubectl_json("get", "agentmemories", "--all-namespaces")["items"]
    return sum(
        one["type"] == "Ready" and one["status"] == "True"
        for item in items
        for one in item.get("status", {}).get("conditions", [])
    )


def leader() -> tuple[float, float]:
    """Memory of the leading operator in MiB, and its processor time so far in seconds."""
    name = kubectl_json("get", "lease", "agentmemory-operator", "-n", SYSTEM)["spec"]["holderIdentity"]
    script = """
import os
status, stat = open("/proc/1/status").read(), open("/proc/1/stat").read()
times = stat.rsplit(")", 1)[1].split()
ticks = os.sysconf("SC_CLK_TCK")
print(int(status.split("VmRSS:")[1].split()[0]) / 1024, (int(times[11]) + int(times[12])) / ticks)
"""
    memory, seconds = kubectl("exec", name, "-n", SYSTEM, "--", "python3", "-c", script).split()
    return float(memory), float(seconds)


def test_a_hundred_memories_and_then_silence(namespace: str) -> None:
    stores = start_stores(namespace)
    wait_for("the namespaces of other tests to be gone", lambda: "Terminating" not in kubectl("get", "ns"), 300.0)
    before, alone = ready(), leader()[0]
    begun = time.monotonic()
    apply(*(stores.memory(f"memory-{number}") for number in range(COUNT)))
    wait_for(f"{COUNT} to be ready", lambda: ready() == before + COUNT, 420.0)
    took = time.monotonic() - begun
    # What was found on the way is written until the second look: from then on it is the same every time.
    settled = time.monotonic() + 2 * RESYNC
    wait_for("the memories to settle", lambda: time.monotonic() > settled)

    first, started, work = requests(), time.monotonic(), leader()[1]
    ending = started + 2 * RESYNC
    wait_for("two looks at every memory", lambda: time.monotonic() > ending)
    made, seconds = requests() - first, time.monotonic() - started
    memory, busy = leader()
    sys.stderr.write(
        f"\n{COUNT} memories ready after {took:.0f} s; idle, with a resync of {RESYNC} s: "
        f"{sum(made.values()) / seconds * 60:.0f} calls a minute {dict(made)}; operator {memory:.0f} MiB "
        f"({alone:.0f} before), {(busy - work) / seconds:.2f} of a core\n"
    )
    assert {key: number for key, number in made.items() if key[0] in _WRITES} == {}
