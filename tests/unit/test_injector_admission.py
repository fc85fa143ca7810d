"""Reviews in, answers out: every pod is allowed, and what is no review is told where it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agentmemory_operator.injector.admission import Admission, Malformed
from agentmemory_operator.injector.decision import Known
from agentmemory_operator.injector.metrics import InjectorMetrics
from support.injector import IMAGE, container, known, memory, operations_of, pod, review


class Memories:
    """What is known, and what only a look would find."""

    def __init__(self, *memories: Known, found: Mapping[str, Known] | None = None, error: bool = False) -> None:
        self._known = known(*memories)
        self._found = found or {}
        self._error = error
        self.looks: list[str] = []

    def watches(self, namespace: str) -> bool:
        return namespace != "unwatched"

    def known(self, namespace: str) -> Mapping[str, Known]:
        if self._error:
            raise RuntimeError("the cache is broken")
        return self._known

    async def look(self, namespace: str) -> Mapping[str, Known]:
        self.looks.append(namespace)
        return self._found


def admission(memories: Memories) -> tuple[Admission, InjectorMetrics]:
    metrics = InjectorMetrics()
    return Admission(memories, IMAGE, metrics, excluded=("kube-system", "agentmemory")), metrics


def counted(metrics: InjectorMetrics) -> dict[str, float]:
    """Admissions by result, those that there were."""
    samples = [one for metric in metrics.registry.collect() for one in metric.samples]
    return {
        one.labels["result"]: one.value
        for one in samples
        if one.name == "agentmemory_injector_admissions_total" and one.value
    }


async def asked(
    one: Any, memories: Memories, *, by_namespace: bool = False, **request: Any
) -> tuple[dict[str, Any], dict[str, float]]:
    ours, metrics = admission(memories)
    body = json.dumps(review(one, **request)).encode()
    answer = json.loads(await ours.answer(body, by_namespace=by_namespace))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert answer["response"]["uid"] == "0001"
    assert answer["response"]["allowed"] is True
    return answer, counted(metrics)


async def test_a_pod_that_asks_gets_a_patch() -> None:
    answer, results = await asked(pod(), Memories(memory()))
    paths = [one["path"] for one in operations_of(answer)]
    assert "/spec/initContainers" in paths
    assert "warnings" not in answer["response"]
    assert results == {"injected": 1}


async def test_a_pod_that_does_not_ask_gets_nothing() -> None:
    for one, by_namespace in ((pod(None), False), (pod("false"), True)):
        answer, results = await asked(one, Memories(memory()), by_namespace=by_namespace)
        assert answer["response"] == {"uid": "0001", "allowed": True}
        assert results == {"untouched": 1}


async def test_a_pod_that_gets_none_is_warned_and_marked() -> None:
    answer, results = await asked(pod("another"), Memories(memory()))
    (warning,) = answer["response"]["warnings"]
    assert warning.startswith("agentmemory: there is no AgentMemory 'another'")
    assert [one["path"] for one in operations_of(answer)] == ["/metadata/annotations"]
    assert results == {"missed": 1}


async def test_the_namespace_path_asks_for_pods_without_a_label() -> None:
    answer, results = await asked(pod(None), Memories(memory()), by_namespace=True)
    assert operations_of(answer)
    assert results == {"injected": 1}


async def test_a_memory_of_a_moment_ago_is_looked_for() -> None:
    memories = Memories(found=known(memory()))
    answer, results = await asked(pod(), memories)
    assert operations_of(answer)
    assert memories.looks == ["team"]
    assert results == {"injected": 1}


async def test_what_is_known_is_not_looked_for() -> None:
    for one in (pod(), pod(None), pod(hostNetwork=True), pod("false")):
        memories = Memories(memory())
        await asked(one, memories)
        assert memories.looks == []


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"operation": "UPDATE"}, id="no creation"),
        pytest.param({"namespace": "unwatched"}, id="a namespace of another operator"),
        pytest.param({"namespace": "kube-system"}, id="kube-system"),
        pytest.param({"namespace": "agentmemory"}, id="its own namespace"),
    ],
)
async def test_other_requests_are_left_alone(request_: dict[str, Any]) -> None:
    answer, results = await asked(pod("another"), Memories(memory()), **request_)
    assert answer["response"] == {"uid": "0001", "allowed": True}
    assert results == {"untouched": 1}


async def test_a_dry_run_is_answered_alike_and_counted_apart() -> None:
    dry, results = await asked(pod(), Memories(memory()), dryRun=True)
    wet, _ = await asked(pod(), Memories(memory()))
    assert dry == wet
    assert results == {"dry_run": 1}


@pytest.mark.parametrize(
    ("one", "memories"),
    [
        pytest.param(pod(), Memories(error=True), id="a fault of ours"),
        pytest.param({"metadata": {"labels": ["a"]}, "spec": {}}, Memories(memory()), id="labels that are a list"),
        pytest.param(pod(containers=[{"image": "x"}]), Memories(memory()), id="a container without a name"),
        pytest.param(pod(containers=[container(env="x")]), Memories(memory()), id="an environment that is text"),
    ],
)
async def test_a_pod_is_never_refused(one: Any, memories: Memories, caplog: pytest.LogCaptureFixture) -> None:
    answer, results = await asked(one, memories)
    assert operations_of(answer) == []
    assert "a fault of the injector" in answer["response"]["warnings"][0]
    assert results == {"failed": 1}
    assert caplog.records[-1].exc_info


def without(document: dict[str, Any], *path: str) -> bytes:
    *parents, last = path
    place = document
    for member in parents:
        place = place[member]
    del place[last]
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "no AdmissionReview", id="nothing"),
        pytest.param(b"{", "no AdmissionReview", id="half"),
        pytest.param(b"\xff", "no AdmissionReview", id="no text"),
        pytest.param(b"[]", "Expected `object`", id="a list"),
        pytest.param(
            json.dumps(review({"a": 1})).replace('{"a": 1}', '{"a":' * 100_000).encode(), "recursion", id="too deep"
        ),
        pytest.param(without(review(pod()), "request"), "missing required field `request`", id="no request"),
        pytest.param(without(review(pod()), "request", "uid"), "missing required field `uid`", id="no uid"),
        pytest.param(without(review(pod()), "request", "object"), "missing required field `object`", id="no object"),
        pytest.param(json.dumps(review(None)).encode(), "$.request.object", id="a null object"),
        pytest.param(json.dumps(review({"spec": {}})).encode(), "it has no metadata", id="no metadata"),
        pytest.param(json.dumps(review({"metadata": {}})).encode(), "it has no spec", id="no spec"),
        pytest.param(json.dumps(review(pod(), uid=1)).encode(), "$.request.uid", id="a number for uid"),
        pytest.param(
            json.dumps(review(pod()) | {"apiVersion": "admission.k8s.io/v1beta1"}).encode(),
            "expected a AdmissionReview of admission.k8s.io/v1",
            id="an older version",
        ),
    ],
)
async def test_what_is_no_review_is_told_where(body: bytes, says: str) -> None:
    ours, metrics = admission(Memories(memory()))
    with pytest.raises(Malformed) as caught:
        await ours.answer(body, by_namespace=False)
    assert says in str(caught.value)
    assert counted(metrics) == {"malformed": 1}


async def test_the_log_names_pods_and_not_what_is_in_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    one = pod(containers=[container(env=[{"name": "PASSWORD", "value": "s3cret"}])])
    await asked(one, Memories(memory()))
    await asked(one, Memories())
    assert "team/agent-7d9-* gets the sidecar of research" in caplog.text
    assert "team/agent-7d9-* gets no sidecar: there is no AgentMemory 'research'" in caplog.text
    assert "s3cret" not in caplog.text
