"""What the sidecar may take: annotations over the AgentMemory over the defaults, and never more than fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from agentmemory_operator.injector.resources import sidecar_resources
from agentmemory_operator.injector.wishes import Bound, Unfit, Wishes
from support.injector import pod

BOUNDS: tuple[Bound, ...] = ("request", "limit")


def settled(spec: Any = None, whole: Any = None, **wishes: str) -> dict[str, dict[str, str]]:
    """`cpu_limit="1"` is an annotation, `whole` the resources of the pod itself."""
    asked: dict[tuple[str, Bound], str] = {
        (resource, bound): wishes[f"{resource}_{bound}"]
        for resource in ("cpu", "memory")
        for bound in BOUNDS
        if f"{resource}_{bound}" in wishes
    }
    one = pod(**({"resources": whole} if whole else {}))
    return sidecar_resources(one, Wishes(resources=asked), spec)


DEFAULTS = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}


def test_without_a_word_the_defaults_hold() -> None:
    assert settled() == DEFAULTS
    assert settled({}) == DEFAULTS


@pytest.mark.parametrize(
    ("spec", "wishes", "cpu", "memory"),
    [
        pytest.param({"limits": {"memory": "1Gi"}}, {}, ("50m", "2"), ("96Mi", "1Gi"), id="the memory's limit"),
        pytest.param({"requests": {"cpu": 1}}, {}, ("1", "2"), ("96Mi", "512Mi"), id="a whole number"),
        pytest.param(
            {"limits": {"memory": "1Gi"}}, {"memory_limit": "2Gi"}, ("50m", "2"), ("96Mi", "2Gi"), id="the pod's limit"
        ),
        pytest.param({}, {"memory_request": "1Gi"}, ("50m", "2"), ("1Gi", "1Gi"), id="a request lifts the limit"),
        pytest.param({}, {"memory_limit": "64Mi"}, ("50m", "2"), ("64Mi", "64Mi"), id="a limit lowers the request"),
        pytest.param(
            {"limits": {"cpu": "40m"}}, {}, ("40m", "40m"), ("96Mi", "512Mi"), id="the memory's goes before a default"
        ),
        pytest.param(
            {"requests": {"cpu": "3"}, "limits": {"cpu": "4"}},
            {"cpu_limit": "1"},
            ("1", "1"),
            ("96Mi", "512Mi"),
            id="the pod's goes before the memory's",
        ),
    ],
)
def test_who_says_more_is_heard(
    spec: dict[str, Any], wishes: dict[str, str], cpu: tuple[str, str], memory: tuple[str, str]
) -> None:
    resources = settled(spec, **wishes)
    assert (resources["requests"]["cpu"], resources["limits"]["cpu"]) == cpu
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == memory


def test_other_resources_of_the_memory_are_handed_on() -> None:
    spec = {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "2Gi"}}
    resources = settled(spec)
    assert resources["requests"]["ephemeral-storage"] == "1Gi"
    assert resources["limits"]["ephemeral-storage"] == "2Gi"


def test_a_memory_that_contradicts_itself_is_told_so() -> None:
    with pytest.raises(Unfit, match="memory request 2Gi is above its limit 1Gi"):
        settled({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}})
    with pytest.raises(Unfit, match=r"spec\.sidecar\.resources of the AgentMemory: cpu"):
        settled({"requests": {"cpu": "much"}})


def test_what_the_pod_bounds_as_a_whole_is_left_to_it() -> None:
    assert settled(whole={"limits": {"memory": "100Mi"}}) == {"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}}
    assert settled(whole={"requests": {"cpu": "1", "memory": "1Gi"}}) == {}
    with pytest.raises(Unfit, match=r"sidecar-memory-limit: the pod's own spec\.resources bound memory"):
        settled(whole={"limits": {"memory": "1Gi"}}, memory_limit="1Gi")
    assert settled(whole={"limits": {"memory": "1Gi"}}, cpu_limit="1")["limits"] == {"cpu": "1"}


quantities = st.sampled_from(["1m", "50m", "0.5", "1", "2", "1e3", "64Mi", "96Mi", "1Gi", "1G", "3Gi"])
some = st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities)


@given(
    spec=st.fixed_dictionaries({}, optional={"requests": some, "limits": some}),
    wishes=st.dictionaries(st.sampled_from(["cpu_request", "cpu_limit", "memory_request", "memory_limit"]), quantities),
)
def test_both_are_always_set_and_fit(spec: dict[str, Any], wishes: dict[str, str]) -> None:
    try:
        resources = settled(spec, **wishes)
    except Unfit as reason:
        assert "is above its limit" in str(reason)
        return
    for resource in ("cpu", "memory"):
        request, limit = resources["requests"][resource], resources["limits"][resource]
        assert parse_quantity(request) <= parse_quantity(limit)  # type: ignore[no-untyped-call]
        for bound, member in (("request", "requests"), ("limit", "limits")):
            said = {wishes.get(f"{resource}_request"), wishes.get(f"{resource}_limit")}
            if f"{resource}_{bound}" in wishes:
                assert resources[member][resource] in said
