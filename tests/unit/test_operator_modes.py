"""What is made in a cluster for a memory with managed stores: those that its mode uses."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator import conditions, reconcile
from agentmemory_operator.controller import Controller
from agentmemory_operator.kube import AGENT_MEMORY
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.names import API_VERSION, KIND
from agentmemory_operator.observe import observe
from support.fake_kube import FakeKube
from support.operators import CONFIG, Clock

KEY = ("team", "research")
MANAGED: dict[str, Any] = {"managed": {}}
SPECS: dict[str, dict[str, Any]] = {
    "Hybrid": {"redis": MANAGED, "postgres": MANAGED | {"pooler": {"enabled": True}}},
    "Redis": {"mode": "Redis", "redis": MANAGED},
    "Postgres": {"mode": "Postgres", "postgres": MANAGED | {"pooler": {"enabled": True}}},
}
STORES = {"Hybrid": ("redis", "postgres"), "Redis": ("redis",), "Postgres": ("postgres",)}


@pytest.mark.parametrize("mode", SPECS)
async def test_only_what_the_mode_needs_is_made(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod ever starts here, so nobody is asked anything."""
    monkeypatch.setattr(reconcile, "STEPS", [step for step in reconcile.STEPS if step.run is not observe])
    kube = FakeKube()
    metadata: dict[str, Any] = {"name": KEY[1], "namespace": KEY[0], "uid": "u", "generation": 1}
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata | {"resourceVersion": "0"},
        "spec": SPECS[mode],
    }
    kube.objects[AGENT_MEMORY.name, *KEY] = body
    await Controller(kube, CONFIG, Metrics(), clock=Clock()).reconcile_once(KEY)
    made = {f"{kind}/{name}" for kind, _, name in kube.objects if kind not in (KIND, "Event")}
    stores = STORES[mode]
    expected = {"Secret/research-credentials", "Secret/research-ca", "ConfigMap/research-sidecar"}
    for part in stores:
        expected |= {
            f"{kind}/research-{part}" for kind in ("StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget")
        }
        expected |= {f"Secret/research-{part}-{what}" for what in ("admin", "tls")}
    if "postgres" in stores:
        kinds = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap", "Secret")
        expected |= {f"{kind}/research-pooler" for kind in kinds} | {"Secret/research-pooler-tls"}
    assert made == expected
    said = {one["type"]: one["status"] for one in kube.objects[AGENT_MEMORY.name, *KEY]["status"]["conditions"]}
    assert set(conditions.NEEDED) & set(said) == set(conditions.needed(stores))
    assert said[conditions.READY] == "False"
