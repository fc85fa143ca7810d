"""What holds for every pod, whatever is in it."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.injector import Pod, container, known, memory, patched, pod

MEMORIES = known(memory(), memory("other", sidecar={"port": 8080}))
names = st.sampled_from(["app", "worker", "proxy", "init", "a", "b", "agentmemory", "c", "d"])
variables = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["AGENTMEMORY_URL", "HOME", "X"]), "value": st.text(max_size=3)}),
    max_size=3,
    unique_by=lambda one: one["name"],
)
ports = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([80, 7070, 7071, 8080])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    max_size=2,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "env": variables,
        "ports": ports,
        "volumeMounts": st.just([{"name": "v", "mountPath": "/tmp"}]),
        "restartPolicy": st.just("Always"),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    every = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    split = draw(st.integers(min_value=0, max_value=len(every) - 1))
    inits, apps = every[:split], every[split:]
    spec: dict[str, Any] = {"containers": [container(name, **draw(fields)) for name in apps]}
    if inits:
        spec["initContainers"] = [container(name, **draw(fields)) for name in inits]
    spec |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "volumes": st.lists(
                    st.sampled_from(["v", "w", "agentmemory", "agentmemory-tmp"]).map(lambda name: {"name": name}),
                    max_size=3,
                    unique_by=lambda one: one["name"],
                ),
                "hostNetwork": st.booleans(),
                "terminationGracePeriodSeconds": st.integers(min_value=0, max_value=60),
                "resources": st.just({"limits": {"memory": "1Gi"}}),
            },
        )
    )
    annotations = draw(
        st.dictionaries(
            st.sampled_from(
                ["agents", "containers", "sidecar-cpu-limit", "sidecar-memory-request", "injection-error"]
            ).map(lambda name: f"agentmemory.io/{name}"),
            st.sampled_from(["app", "a,b", "1", "64Mi", "1Gi", "", "no/thing"]),
        )
    )
    labels = draw(st.dictionaries(st.sampled_from(["agentmemory.io/sidecar", "x~y/z"]), st.just("research")))
    asks = draw(st.sampled_from(["research", "other", "true", "false", "nobody", None]))
    return pod(asks, labels=labels, annotations=annotations, **spec)


@given(pods(), st.booleans())
def test_twice_is_once(one: Pod, by_namespace: bool) -> None:
    once = patched(one, memories=MEMORIES, by_namespace=by_namespace)
    assert patched(once, memories=MEMORIES, by_namespace=by_namespace) == once


@given(pods(), st.booleans())
def test_what_the_pod_had_is_still_there(one: Pod, by_namespace: bool) -> None:
    after = patched(one, memories=MEMORIES, by_namespace=by_namespace)
    for member in ("initContainers", "containers"):
        before = one["spec"].get(member, [])
        kept = after["spec"].get(member, [])[-len(before) or len(after["spec"].get(member, [])) :]
        assert [_without_url(each) for each in kept] == [_without_url(each) for each in before]
        for old, new in zip(before, kept, strict=True):
            assert [each for each in new.get("env", []) if each in old.get("env", [])] == old.get("env", [])
    assert after["spec"].get("volumes", [])[: len(one["spec"].get("volumes", []))] == one["spec"].get("volumes", [])
    ours = {"initContainers", "containers", "volumes"}
    assert {key: value for key, value in after["spec"].items() if key not in ours} == {
        key: value for key, value in one["spec"].items() if key not in ours
    }
    assert (
        after["metadata"].get("labels", {}).items()
        >= {
            key: value for key, value in one["metadata"].get("labels", {}).items() if key != "agentmemory.io/sidecar"
        }.items()
    )


def _without_url(one: dict[str, Any]) -> dict[str, Any]:
    other = copy.deepcopy(one)
    other["env"] = [each for each in other.get("env", []) if each["name"] != "AGENTMEMORY_URL"]
    return other


@given(pods(), st.booleans())
def test_a_valid_pod_stays_valid(one: Pod, by_namespace: bool) -> None:
    spec = patched(one, memories=MEMORIES, by_namespace=by_namespace)["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    volumes = [each["name"] for each in spec.get("volumes", [])]
    assert _unique(each["name"] for each in containers)
    assert _unique(volumes)
    for each in containers:
        assert _unique(mount["mountPath"] for mount in each.get("volumeMounts", []))
        assert _unique(variable["name"] for variable in each.get("env", []))
        if each["name"] == "agentmemory" and "securityContext" in each:
            assert {mount["name"] for mount in each["volumeMounts"]} <= set(volumes)
            own = {each["ports"][0]["containerPort"]}
            others = {p["containerPort"] for other in containers if other is not each for p in _tcp(other)}
            assert not own & others


def _tcp(one: dict[str, Any]) -> list[dict[str, Any]]:
    return [port for port in one.get("ports", []) if port.get("protocol", "TCP") == "TCP"]


def _unique(items: Any) -> bool:
    items = list(items)
    return len(items) == len(set(items))


@given(pods())
def test_a_pod_that_did_not_ask_is_never_touched(one: Pod) -> None:
    one["metadata"].get("labels", {}).pop("agentmemory.io/inject", None)
    assert patched(one, memories=MEMORIES) == one


@given(pods())
def test_a_pod_that_opted_out_is_never_touched(one: Pod) -> None:
    one["metadata"].setdefault("labels", {})["agentmemory.io/inject"] = "false"
    assert patched(one, memories=MEMORIES, by_namespace=True) == one


@given(pods())
def test_a_pod_that_asked_has_a_sidecar_or_the_reason_why_not(one: Pod) -> None:
    labels = one["metadata"].setdefault("labels", {})
    labels.pop("agentmemory.io/sidecar", None)
    labels["agentmemory.io/inject"] = "research"
    after = patched(one, memories=MEMORIES)
    error = after["metadata"].get("annotations", {}).get("agentmemory.io/injection-error")
    injected = "agentmemory.io/sidecar" in after["metadata"]["labels"]
    assert injected is (error is None)
