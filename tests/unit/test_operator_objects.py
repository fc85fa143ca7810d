from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_operator.errors import Blocked, OperatorFault, Refused, Waiting
from agentmemory_operator.kube import CONFIG_MAP, SECRET, KubeError, Object
from agentmemory_operator.names import MANAGER, MEMORY_LABEL
from agentmemory_operator.objects import APPLIED_ANNOTATION, Objects, covers, encode_secret, secret_data, stamped
from support.fake_kube import FakeKube

LABELS = {"app.kubernetes.io/managed-by": MANAGER, MEMORY_LABEL: "research"}
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def config_map(data: dict[str, str], **labels: str) -> Object:
    metadata = {"name": "research-sidecar", "namespace": "team", "labels": LABELS | labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def objects(kube: FakeKube) -> Objects:
    return Objects(kube, "team", "research")


@given(TREES)
def test_everything_covers_itself(tree: Any) -> None:
    assert covers(tree, tree)


@given(st.dictionaries(st.text(max_size=5), TREES, max_size=4), st.dictionaries(st.text(max_size=5), TREES, max_size=4))
def test_what_others_added_does_not_count(desired: dict[str, Any], added: dict[str, Any]) -> None:
    assert covers(added | desired, desired)


@pytest.mark.parametrize(
    ("live", "desired", "holds"),
    [
        ({"cpu": "1"}, {"cpu": "1000m"}, True), ({"memory": "1Gi"}, {"memory": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "2Gi"}, False), ({"a": 1}, {"a": 2}, False), ({}, {"a": 1}, False),
        ([1, 2], [1], False), ([{"a": 1, "b": 2}], [{"a": 1}], True), ("one", "two", False), ("1", 1, False),
        ({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, False),
        ({"from": [{"podSelector": {}}]}, {"from": [{"podSelector": {"matchLabels": {"a": "1"}}}]}, False),
        ({"ports": [{"name": "other"}, {"name": "a", "port": 1}]}, {"ports": [{"name": "a", "port": 1}]}, True),
        ({"ports": [{"name": "other"}, {"name": "a", "port": 2}]}, {"ports": [{"name": "a", "port": 1}]}, False),
        ({"ports": [{"name": "other"}]}, {"ports": [{"name": "a"}]}, False),
        ({"ports": [{"port": 1}, {"port": 2}]}, {"ports": [{"port": 1}]}, False),
        ({"volumeMounts": [{"mountPath": "/b"}, {"mountPath": "/a", "name": "x"}]},
         {"volumeMounts": [{"mountPath": "/a", "name": "x"}]}, True),
    ],
)  # fmt: skip
def test_covers(live: Any, desired: Any, holds: bool) -> None:
    assert covers(live, desired) is holds


async def test_what_is_as_declared_is_not_written(kube: FakeKube, objects: Objects) -> None:
    await objects.ensure(config_map({"a": "1"}))
    before = kube.writes
    await objects.ensure(config_map({"a": "1"}))
    assert kube.writes == before


async def test_drift_is_mended(kube: FakeKube, objects: Objects) -> None:
    await objects.ensure(config_map({"a": "1"}))
    kube.objects["ConfigMap", "team", "research-sidecar"]["data"]["a"] = "spoilt"
    live = await objects.ensure(config_map({"a": "1"}))
    assert live["data"] == {"a": "1"}


async def test_what_is_declared_no_more_goes(objects: Objects) -> None:
    await objects.ensure(config_map({"a": "1", "b": "2"}))
    live = await objects.ensure(config_map({"a": "1"}))
    assert live["data"] == {"a": "1"}


def test_the_stamp_tells_one_manifest_from_another() -> None:
    one, other = stamped(config_map({"a": "1"})), stamped(config_map({"a": "2"}))
    marks = [thing["metadata"]["annotations"][APPLIED_ANNOTATION] for thing in (one, other)]
    assert marks[0] != marks[1]


@pytest.mark.parametrize("label", [MEMORY_LABEL, "app.kubernetes.io/managed-by"])
async def test_another_ones_object_is_never_taken(kube: FakeKube, objects: Objects, label: str) -> None:
    await kube.create(config_map({"theirs": "1"}, **{label: "somebody"}))
    with pytest.raises(Blocked, match="left alone") as caught:
        await objects.ensure(config_map({"a": "1"}))
    assert caught.value.reason == "NameTaken"
    await objects.remove(CONFIG_MAP, "research-sidecar")
    assert kube.objects["ConfigMap", "team", "research-sidecar"]["data"] == {"theirs": "1"}


async def test_an_object_that_goes_is_waited_for(kube: FakeKube, objects: Objects) -> None:
    await objects.ensure(config_map({"a": "1"}))
    kube.objects["ConfigMap", "team", "research-sidecar"]["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    with pytest.raises(Waiting, match="being deleted"):
        await objects.ensure(config_map({"a": "1"}))


def secret(**data: str) -> Object:
    metadata = {"name": "research-credentials", "namespace": "team", "labels": LABELS}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encode_secret(data)}


async def test_two_leaders_get_the_same_password(kube: FakeKube, objects: Objects) -> None:
    other = Objects(kube, "team", "research")
    first = await objects.ensure_secret(secret(password="one"))
    second = await other.ensure_secret(secret(password="two"))
    assert secret_data(first) == secret_data(second) == {"password": "one"}


async def test_a_secret_made_meanwhile_is_the_one_that_counts(kube: FakeKube, objects: Objects) -> None:
    made = False

    def meanwhile(verb: str, kind: str) -> None:
        nonlocal made
        if verb == "create" and not made:
            made = True
            theirs = secret(password="theirs")
            theirs["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1}
            kube.objects["Secret", "team", "research-credentials"] = theirs

    kube.before = meanwhile
    assert secret_data(await objects.ensure_secret(secret(password="ours"))) == {"password": "theirs"}


async def test_a_secret_is_changed_only_as_it_was_read(kube: FakeKube, objects: Objects) -> None:
    live = await objects.ensure_secret(secret(password="one"))
    await objects.change_secret(live, {"password": "two"})
    with pytest.raises(Waiting, match="another hand"):
        await objects.change_secret(live, {"password": "three"})
    assert secret_data(kube.objects["Secret", "team", "research-credentials"]) == {"password": "two"}


async def test_only_the_owner_of_a_secret_is_kept_right(kube: FakeKube, objects: Objects) -> None:
    await objects.ensure_secret(secret(password="one"))
    owned = secret(password="two")
    owned["metadata"]["ownerReferences"] = [{"uid": "me"}]
    live = await objects.ensure_secret(owned)
    assert live["metadata"]["ownerReferences"] == [{"uid": "me"}]
    assert secret_data(live) == {"password": "one"}
    live = await objects.ensure_secret(secret(password="two"))
    assert "ownerReferences" not in live["metadata"]


async def test_frozen_nothing_is_written(kube: FakeKube, objects: Objects) -> None:
    await objects.ensure(config_map({"a": "1"}))
    before = kube.writes
    objects.frozen = True
    assert (await objects.ensure(config_map({"a": "2"})))["data"] == {"a": "1"}
    await objects.remove(CONFIG_MAP, "research-sidecar")
    with pytest.raises(Waiting, match="paused"):
        await objects.ensure_secret(secret(password="one"))
    absent = config_map({}) | {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget"}
    assert await objects.ensure(absent) == absent, "what serves goes on without it"
    assert kube.writes == before


@pytest.mark.parametrize(
    ("status", "message", "fault", "reason"),
    [
        (422, "field is immutable", Refused, "ChangeRefused"),
        (403, "exceeded quota: small", Blocked, "QuotaExceeded"),
        (403, "not allowed", Blocked, "Forbidden"),
        (500, "etcd is gone", KubeError, "Failed"),
    ],
)
async def test_refusals_are_said_in_the_words_of_conditions(
    kube: FakeKube, objects: Objects, status: int, message: str, fault: type[Exception], reason: str
) -> None:
    def refuse(verb: str, kind: str) -> None:
        if verb == "apply":
            raise KubeError(status, "Failed", message)

    kube.before = refuse
    with pytest.raises(fault, match=message) as caught:
        await objects.ensure(config_map({"a": "1"}))
    assert isinstance(caught.value, OperatorFault | KubeError)
    assert caught.value.reason == reason


def test_a_secret_that_is_no_text_is_refused() -> None:
    with pytest.raises(Blocked, match="research-credentials"):
        secret_data({"kind": SECRET.name, "metadata": {"name": "research-credentials"}, "data": {"password": "/w=="}})
