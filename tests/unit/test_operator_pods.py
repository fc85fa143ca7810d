from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator.draining import state_of
from agentmemory_operator.kube import KubeError
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.names import INJECT_LABEL, INJECTION_ERROR_ANNOTATION, SIDECAR_LABEL
from agentmemory_operator.pods import count, lacks_sidecar, namespace_asks
from agentmemory_operator.strays import compose, sweep
from support.fake_kube import FakeKube
from support.operators import CONFIG, Clock


def pod(name: str, phase: str = "Running", *, running: bool = False, **labels: str) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}} if running else {"waiting": {}}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": "1", "labels": {
            {"inject": INJECT_LABEL, "sidecar": SIDECAR_LABEL}[key]: value for key, value in labels.items()
        }},
        "status": {"phase": phase, "initContainerStatuses": [{"name": "agentmemory", "state": state}]},
    }  # fmt: skip


PODS = [
    pod("plain"), pod("opted-out", inject="false"), pod("other", inject="other", sidecar="other"),
    pod("good", inject="research", sidecar="research", running=True),
    pod("starting", inject="research", sidecar="research"), pod("by-name", inject="research"),
    pod("by-true", inject="true"), pod("over", "Succeeded", inject="research", sidecar="research"),
    pod("over-without", "Failed", inject="research"),
]  # fmt: skip


def test_who_has_a_sidecar_and_who_lacks_one() -> None:
    found = count(PODS, "research", {"research", "other"}, by_namespace=False)
    assert (found.injected, found.missing, found.running) == (["good", "starting"], ["by-name"], 1)


def test_the_only_memory_is_meant_by_true() -> None:
    assert count(PODS, "research", {"research"}, by_namespace=False).missing == ["by-name", "by-true"]


def test_a_namespace_asks_for_all_that_do_not_say() -> None:
    assert count(PODS, "research", {"research"}, by_namespace=True).missing == ["by-name", "by-true", "plain"]


@pytest.mark.parametrize(
    ("one", "by_namespace", "lacks"),
    [
        (pod("a", inject="research"), False, True), (pod("a", inject="false"), True, False),
        (pod("a"), True, True), (pod("a"), False, False), (pod("a", sidecar="research"), True, False),
        (pod("a", "Failed", inject="research"), False, False),
    ],
)  # fmt: skip
def test_lacks_sidecar(one: dict[str, Any], by_namespace: bool, lacks: bool) -> None:
    assert lacks_sidecar(one, by_namespace=by_namespace) is lacks


@pytest.mark.parametrize(
    ("namespace", "asks"),
    [
        (None, False), ({"metadata": {}}, False), ({"metadata": {"labels": {INJECT_LABEL: "true"}}}, True),
        ({"metadata": {"labels": {INJECT_LABEL: "research"}}}, False),
    ],
)  # fmt: skip
def test_namespace_asks(namespace: dict[str, Any] | None, asks: bool) -> None:
    assert namespace_asks(namespace) is asks


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([], "running"), ([{"type": "Complete", "status": "True"}], "succeeded"),
        ([{"type": "Failed", "status": "True"}], "failed"), ([{"type": "Failed", "status": "False"}], "running"),
        ([{"type": "SuccessCriteriaMet", "status": "True"}], "running"),
    ],
)  # fmt: skip
def test_how_far_a_drain_is(conditions: list[dict[str, str]], state: str) -> None:
    assert state_of({"status": {"conditions": conditions}}) == state
    assert state_of(None) == "none"


def test_the_event_says_why() -> None:
    stray = pod("by-name", inject="research")
    assert "Delete it" in compose(stray, instance="operator-0", now=Clock()())["note"]
    stray["metadata"]["annotations"] = {INJECTION_ERROR_ANNOTATION: "there is no AgentMemory 'research'"}
    told = compose(stray, instance="operator-0", now=Clock()())
    assert "there is no AgentMemory" in told["note"]
    assert (told["reason"], told["action"], told["type"]) == ("SidecarMissing", "Inject", "Warning")


async def test_a_stray_is_told_once_and_counted_always() -> None:
    kube = FakeKube()
    for one in PODS:
        kube.objects["Pod", "team", one["metadata"]["name"]] = one
    metrics = Metrics()
    told = await sweep(kube, CONFIG, metrics, set(), now=Clock()())
    assert told == {"uid-by-name", "uid-by-true"}
    events = [one for (kind, _, _), one in kube.objects.items() if kind == "Event"]
    assert sorted(one["regarding"]["name"] for one in events) == ["by-name", "by-true"]
    before = kube.writes
    assert await sweep(kube, CONFIG, metrics, told, now=Clock()()) == told
    assert kube.writes == before, "who was told is not told again"
    await sweep(kube, CONFIG, metrics, set(), now=Clock()())
    assert len([1 for kind, _, _ in kube.objects if kind == "Event"]) == 2, "nor by another process"
    sample = metrics.registry.get_sample_value(
        "agentmemory_pods_missing_sidecar", {"namespace": "team", "agentmemory": "research"}
    )
    assert sample == 1.0


async def test_a_namespace_that_takes_no_events_keeps_nobody_else_from_theirs() -> None:
    kube = FakeKube()
    for one in PODS:
        kube.objects["Pod", "team", one["metadata"]["name"]] = one
    refusals = [KubeError(403, "Forbidden", "exceeded quota: few")]

    def refuse_first(verb: str, kind: str) -> None:
        if kind == "Event" and refusals:
            raise refusals.pop()

    kube.before = refuse_first
    assert len(await sweep(kube, CONFIG, Metrics(), set(), now=Clock()())) == 2
    assert len([1 for kind, _, _ in kube.objects if kind == "Event"]) == 1
