"""The CRD on a real API server: what it accepts, what it refuses, and the message that a person then gets."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kubectl import KubectlError, kubectl, kubectl_json

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "agentmemories.agentmemory.io.yaml"
EXAMPLES = Path(__file__).parent / "crd"
ACCEPTED = [*sorted((EXAMPLES / "accepted").glob("*.yaml")), ROOT / "examples" / "agentmemory.yaml"]
REFUSED = sorted((EXAMPLES / "refused").glob("*.yaml"))
UNCHECKED = "some validation rules were not checked"
"""The API server's own remark where a field is so wrong that it leaves the rules alone."""

STATUS = {
    "observedGeneration": 1,
    "phase": "Ready",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "AsDeclared",
            "message": "",
            "lastTransitionTime": "2026-11-22T12:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "redis": {"host": "example-redis.team.svc", "port": 6379, "version": "8.0.2", "persistence": "everysec"},
    "postgres": {
        "host": "example-postgres.team.svc",
        "port": 5432,
        "database": "agentmemory",
        "schema": "am_team_example",
        "version": "17.5",
        "vectorVersion": "0.8.0",
    },
    "schema": {"version": 3, "appliedAt": "2026-11-22T12:00:00Z"},
    "consolidation": {
        "lagSeconds": 1.5,
        "pending": 7,
        "deadLetters": 0,
        "lagRatio": 0.001,
        "observedAt": "2026-11-22T12:00:00Z",
    },
    "embedding": {
        "model": "potion",
        "since": "2026-11-22T12:00:00Z",
        "next": "text-embedding-3-small",
        "backFilled": 7,
        "total": 12,
    },
    "sidecars": {"injected": 2, "missing": 0},
    "credentials": {
        "rotation": "1",
        "rotatedAt": "2026-11-22T12:00:00Z",
        "certificates": "1",
        "certificatesExpireAt": "2027-02-20T12:00:00Z",
    },
    "drain": {"lastRunAt": "2026-11-22T12:00:00Z", "message": "The journal was emptied."},
    "applied": {
        "mode": "Hybrid",
        "shards": 16,
        "redis": "Managed",
        "postgres": "External",
        "identity": "4c1c6a34-5d2f-4a54-9d9c-0d8f1f1f6f51",
        "external": {
            "redis": {"host": "r.team.svc", "port": 6379, "tls": False, "secretRef": {"name": "r"}},
            "postgres": {
                "host": "p.team.svc",
                "port": 5432,
                "database": "agentmemory",
                "sslMode": "verify-full",
                "secretRef": {"name": "p"},
            },
        },
    },
}


@pytest.fixture(scope="session")
def crd(chart: None) -> None:
    """The CRD as it is in this checkout, which the chart brings."""
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/agentmemories.agentmemory.io")


@pytest.fixture(scope="module")
def namespace(crd: None) -> Iterator[str]:
    """A namespace of this module's own."""
    name = f"crd-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def create(namespace: str, document: dict[str, Any], *options: str) -> Any:
    return kubectl_json("create", f"--namespace={namespace}", "--filename=-", *options, input=json.dumps(document))


def update(namespace: str, document: dict[str, Any], *options: str) -> Any:
    """A patch of the whole spec: the API server itself holds it against whatever version is there by then."""
    patch = json.dumps([{"op": "replace", "path": "/spec", "value": document["spec"]}])
    name = f"{document['kind']}/{document['metadata']['name']}"
    return kubectl_json("patch", name, f"--namespace={namespace}", "--type=json", f"--patch={patch}", *options)


def send_all(namespace: str, path: Path) -> Any:
    """Each document as an update of the one before; the last one as a dry run. Answers what it would become."""
    *before, last = documents(path)
    name = f"{last['kind']}/{last['metadata']['name']}"
    try:
        for number, document in enumerate(before):
            # An operator that runs on this cluster has nothing to do with it.
            document["metadata"]["annotations"] = {"agentmemory.io/reconcile": "disabled"}
            (update if number else create)(namespace, document)
        return (update if before else create)(namespace, last, "--dry-run=server")
    finally:
        if before:
            kubectl("delete", name, f"--namespace={namespace}", "--wait=false")
            kubectl("wait", "--for=delete", name, f"--namespace={namespace}", "--timeout=60s")


def causes(error: KubectlError) -> list[str]:
    """What the API server named, one by one."""
    lines = str(error).splitlines()
    listed = [line.removeprefix("* ") for line in lines if line.startswith("* ")]
    return [cause for cause in listed or [" ".join(lines)] if UNCHECKED not in cause]


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_it_is_accepted(namespace: str, path: Path) -> None:
    wanted = documents(path)[-1]["spec"]
    assert contains(send_all(namespace, path)["spec"], wanted)


def contains(found: Any, wanted: Any) -> bool:
    """Nothing was pruned: all that was asked for is in what was found."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(contains(found.get(key), value) for key, value in wanted.items())
    return bool(found == wanted)


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_it_is_refused_for_its_own_reason(namespace: str, path: Path) -> None:
    first, _, _ = path.read_text().partition("\n")
    with pytest.raises(KubectlError) as caught:
        send_all(namespace, path)
    (cause,) = causes(caught.value)
    assert first.removeprefix("# message: ") in cause


def patch_status(namespace: str, name: str, status: dict[str, Any], *options: str) -> Any:
    patch = f"--patch={json.dumps({'status': status})}"
    options = ("--subresource=status", "--type=merge", patch, *options)
    return kubectl_json("patch", "agentmemory", name, f"--namespace={namespace}", *options)


def made(namespace: str, name: str) -> dict[str, Any]:
    """The least memory, paused: an operator that runs on this cluster writes no more than its status."""
    (least,) = documents(EXAMPLES / "accepted" / "least.yaml")
    least["metadata"] |= {"name": name, "annotations": {"agentmemory.io/reconcile": "disabled"}}
    found: dict[str, Any] = create(namespace, least | {"status": {"phase": "Invented"}})
    return found


def row(namespace: str, name: str, *options: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The columns that kubectl shows, and the object that it shows them of."""
    get = ("get", "agentmemory", name, f"--namespace={namespace}")
    while True:
        before = kubectl_json(*get)
        header, cells = kubectl(*get, *options).splitlines()
        if kubectl_json(*get)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]:
            break
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    places = [slice(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return {header[place].strip(): cells[place].strip() for place in places}, before


def test_the_status_keeps_every_field(namespace: str) -> None:
    made(namespace, "kept")
    assert contains(patch_status(namespace, "kept", STATUS, "--dry-run=server")["status"], STATUS)


def test_the_columns_show_the_status(namespace: str) -> None:
    made(namespace, "shown")
    patch_status(namespace, "shown", STATUS)
    cells, found = row(namespace, "shown", "--output=wide")
    status = found["status"]
    figures, sidecars = status.get("consolidation", {}), status.get("sidecars", {})
    expected = {
        "MODE": "Hybrid",
        "READY": next(one["status"] for one in status["conditions"] if one["type"] == "Ready"),
        "PHASE": status["phase"],
        "LAG": figures.get("lagSeconds", ""),
        "PENDING": figures.get("pending", ""),
        "REDIS": status["redis"].get("version", ""),
        "POSTGRES": status["postgres"].get("version", ""),
        "SCHEMA": status["schema"].get("version", ""),
        "SIDECARS": sidecars.get("injected", ""),
    }
    assert {name: cells[name] for name in expected} == {name: str(value) for name, value in expected.items()}
    assert list(row(namespace, "shown")[0]) == ["NAME", "MODE", "READY", "PHASE", "LAG", "PENDING", "AGE"]


def test_a_status_does_not_change_the_spec_nor_the_spec_a_status(namespace: str) -> None:
    assert made(namespace, "apart").get("status", {}).get("phase") != "Invented"
    patch = f"--patch={json.dumps({'spec': {'deletionPolicy': 'Delete'}, 'status': {'phase': 'Ready'}})}"
    kubectl("patch", "am", "apart", f"--namespace={namespace}", "--subresource=status", "--type=merge", patch)
    found = kubectl_json("get", "am", "apart", f"--namespace={namespace}")
    assert (found["spec"]["deletionPolicy"], found["metadata"]["generation"]) == ("Retain", 1)


def test_kubectl_explains_it(crd: None) -> None:
    told = kubectl("explain", "agentmemory.spec.redis.managed")
    assert "A Redis that the operator runs" in told
    assert "The volume. It can grow where its class allows it; it never shrinks." in told
    assert "agentmemories" in kubectl("api-resources", "--categories=agentmemory", "--output=name")
