"""Which pods get a sidecar, and what those are told that ask and get none."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator.injector.decision import Decision, Inject, Known, Leave, Miss, Unreadable, decide
from agentmemory_operator.spec import read
from support.injector import NAMESPACE, Pod, container, known, memory, pod, resource

RESEARCH = known(memory())
TWO = known(memory(), memory("other"))


def decided(
    one: Pod, memories: dict[str, Known] | None = None, *, by_namespace: bool = False, namespace: str = NAMESPACE
) -> Decision:
    return decide(
        one,
        memories=RESEARCH if memories is None else memories,
        namespace=namespace,
        by_namespace=by_namespace,
        excluded=("kube-system", "agentmemory"),
    )


@pytest.mark.parametrize(
    ("one", "memories", "by_namespace", "name"),
    [
        pytest.param(pod("research"), TWO, False, "research", id="by name"),
        pytest.param(pod("other"), TWO, False, "other", id="by the other name"),
        pytest.param(pod("true"), RESEARCH, False, "research", id="the only one"),
        pytest.param(pod(None), RESEARCH, True, "research", id="by the namespace"),
        pytest.param(pod("other"), TWO, True, "other", id="by name in a namespace that asks"),
    ],
)
def test_a_pod_gets_the_memory_it_asks_for(one: Pod, memories: dict[str, Known], by_namespace: bool, name: str) -> None:
    decision = decided(one, memories, by_namespace=by_namespace)
    assert isinstance(decision, Inject)
    assert decision.memory.name == name


INJECTED = {"agentmemory.io/sidecar": "research"}


@pytest.mark.parametrize(
    ("one", "by_namespace", "namespace"),
    [
        pytest.param(pod(None), False, NAMESPACE, id="did not ask"),
        pytest.param(pod("false"), False, NAMESPACE, id="opted out"),
        pytest.param(pod("false"), True, NAMESPACE, id="opted out of what its namespace asks"),
        pytest.param(pod("research"), False, "kube-system", id="kube-system"),
        pytest.param(pod("research"), True, "agentmemory", id="the operator's own namespace"),
        pytest.param(
            pod(labels=INJECTED, initContainers=[container("agentmemory")]), False, NAMESPACE, id="has its sidecar"
        ),
        pytest.param(
            pod(labels=INJECTED, containers=[container(), container("agentmemory")]),
            True,
            NAMESPACE,
            id="has its sidecar among the containers",
        ),
        pytest.param(pod("false", hostNetwork=True), True, NAMESPACE, id="opted out, for good reason"),
    ],
)
def test_a_pod_is_left_alone(one: Pod, by_namespace: bool, namespace: str) -> None:
    assert decided(one, by_namespace=by_namespace, namespace=namespace) == Leave()


DELETED = resource()
DELETED["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
MANY = known(*(memory(name) for name in "dcba"))


def with_port(number: int, **fields: Any) -> Pod:
    return pod(containers=[container(ports=[{"containerPort": 80}, {"containerPort": number, **fields}])])


@pytest.mark.parametrize(
    ("one", "memories", "says"),
    [
        pytest.param(pod("another"), RESEARCH, "no AgentMemory 'another' in namespace 'team'", id="unknown name"),
        pytest.param(pod(""), RESEARCH, "no AgentMemory '' in namespace 'team'", id="empty name"),
        pytest.param(pod("true"), {}, "no AgentMemory in namespace 'team'", id="true and none"),
        pytest.param(pod("true"), MANY, "has 4 AgentMemories; name one", id="true and several"),
        pytest.param(pod("true"), MANY, "agentmemory.io/inject: a, b, c, ...", id="which they are"),
        pytest.param(
            pod(),
            known(Unreadable("research", "spec.shards: wrong")),
            "cannot be used: spec.shards: wrong",
            id="broken",
        ),
        pytest.param(pod(), known(read(DELETED)), "'research' is being deleted", id="on its way out"),
        pytest.param(pod(hostNetwork=True), RESEARCH, "hostNetwork gets no sidecar", id="host network"),
        pytest.param(
            pod(annotations={"kubernetes.io/config.mirror": "x"}), RESEARCH, "static pod", id="a mirror of a static pod"
        ),
        pytest.param(pod(os={"name": "windows"}), RESEARCH, "runs on Linux, this pod on windows", id="windows"),
        pytest.param(
            pod(nodeSelector={"kubernetes.io/os": "windows"}), RESEARCH, "this pod on windows", id="windows by selector"
        ),
        pytest.param(
            pod(containers=[container("agentmemory")]), RESEARCH, "container 'agentmemory'", id="our container's name"
        ),
        pytest.param(
            pod(initContainers=[container("agentmemory")]), RESEARCH, "container 'agentmemory'", id="in init containers"
        ),
        pytest.param(
            pod(volumes=[{"name": "agentmemory", "emptyDir": {}}]), RESEARCH, "volume 'agentmemory'", id="our volume"
        ),
        pytest.param(
            pod(volumes=[{"name": "agentmemory-tmp"}]), RESEARCH, "volume 'agentmemory-tmp'", id="our other volume"
        ),
        pytest.param(with_port(7070), RESEARCH, "'app' has port 7070, which is the sidecar's", id="API port"),
        pytest.param(with_port(7071, protocol="TCP"), RESEARCH, "has port 7071", id="ops port"),
        pytest.param(
            with_port(8000), known(memory(sidecar={"port": 8000})), "port 8000", id="the port that the memory says"
        ),
        pytest.param(
            pod(initContainers=[container("proxy", ports=[{"containerPort": 7070}])]),
            RESEARCH,
            "container 'proxy' has port 7070",
            id="the port of an init container",
        ),
    ],
)
def test_a_pod_that_cannot_have_one_is_told_why(one: Pod, memories: dict[str, Known], says: str) -> None:
    decision = decided(one, memories)
    assert isinstance(decision, Miss)
    assert says in decision.message


def test_the_ports_of_others_are_their_own_affair() -> None:
    assert isinstance(decided(with_port(7070, protocol="UDP")), Inject)
    assert isinstance(decided(with_port(7070), known(memory(sidecar={"port": 1, "opsPort": 2}))), Inject)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({"agents": "a/b"}, "agentmemory.io/agents: 'a/b' is neither an agent id nor a pattern"),
        ({"agents": "a, ,b"}, "agentmemory.io/agents: an item of the list is empty"),
        ({"agents": ""}, "agentmemory.io/agents: an item of the list is empty"),
        ({"agents": "[ab]"}, "neither an agent id"),
        ({"agents": "$(HOME)"}, "neither an agent id"),
        ({"agents": "-a"}, "neither an agent id"),
        ({"agents": "a" * 129}, "neither an agent id"),
        ({"containers": "app,wroker"}, "agentmemory.io/containers: the pod has no container 'wroker'"),
        ({"containers": " "}, "agentmemory.io/containers: an item of the list is empty"),
        ({"sidecar-cpu-request": "fast"}, "agentmemory.io/sidecar-cpu-request: 'fast' is not a quantity"),
        ({"sidecar-memory-limit": "-1"}, "agentmemory.io/sidecar-memory-limit: '-1' is not a quantity"),
        ({"sidecar-memory-limit": ""}, "agentmemory.io/sidecar-memory-limit: '' is not a quantity"),
        ({"sidecar-memory-limit": "1GiB"}, "is not a quantity"),
        ({"sidecar-cpu-request": "2", "sidecar-cpu-limit": "1500m"}, "cpu request 2 is above its limit 1500m"),
    ],
)
def test_a_wrong_annotation_is_named(annotations: dict[str, str], says: str) -> None:
    decision = decided(pod(annotations={f"agentmemory.io/{name}": value for name, value in annotations.items()}))
    assert isinstance(decision, Miss)
    assert says in decision.message
    assert not decision.unknown


@pytest.mark.parametrize("agents", ["a", "a,b", " a , b-*,?x,user:7@home", "*", "A" * 128])
def test_agents_are_ids_and_patterns(agents: str) -> None:
    decision = decided(pod(annotations={"agentmemory.io/agents": agents}))
    assert isinstance(decision, Inject)
    assert decision.wishes.agents == agents.replace(" ", "")


def test_only_what_a_new_memory_would_mend_is_unknown() -> None:
    def unknown(one: Pod, memories: dict[str, Known] | None = None) -> bool:
        decision = decided(one, memories)
        assert isinstance(decision, Miss)
        return decision.unknown

    assert unknown(pod("another"))
    assert unknown(pod("true"), {})
    assert not unknown(pod("true"), TWO)
    assert not unknown(pod(hostNetwork=True))


def test_what_is_said_fits_into_a_warning() -> None:
    """The API server cuts longer ones. Names are as long as they may be."""
    namespace, name = "n" * 63, "m" * 40
    long = [memory(letter + name[1:]) for letter in "abcd"]
    port = [{"containerPort": 7070}]
    cases: list[tuple[Pod, dict[str, Known]]] = [
        (pod("x" * 63), {}),
        (pod("true"), {}),
        (pod("true"), known(*long)),
        (pod(name, hostNetwork=True), known(memory(name))),
        (pod(name, containers=[container("c" * 63, ports=port)]), known(memory(name))),
        (pod(name), known(Unreadable(name, "e" * 500))),
        (pod(name, annotations={"agentmemory.io/agents": "/" * 500}), known(memory(name))),
        (pod(name, annotations={"agentmemory.io/containers": "c" * 500}), known(memory(name))),
        (pod(name, annotations={"agentmemory.io/sidecar-memory-request": "q" * 500}), known(memory(name))),
    ]
    for one, memories in cases:
        decision = decided(one, memories, namespace=namespace)
        assert isinstance(decision, Miss)
        assert len(decision.message) <= 235, decision.message
