"""What the operator relies on of the API server; checked of the one in memory and of a real one alike."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentmemory_operator.kube import CONFIG_MAP, Kube, KubeError, Object

LABELS = {"part": "contract", "kind": "one"}


def config_map(namespace: str, name: str = "one", **data: str) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": dict(LABELS)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def listed(kube: Kube, space: str, names: set[str]) -> None:
    """Until a list shows them: what the API server has in its memory may be a moment old."""
    async with asyncio.timeout(30):
        while not names <= {one["metadata"]["name"] for one in await kube.list(CONFIG_MAP, space)}:
            await asyncio.sleep(0.05)


class KubeContract:
    """Subclasses bring `kube` and `space`, a namespace of the test's own."""

    async def test_what_is_not_there_is_none(self, kube: Kube, space: str) -> None:
        assert await kube.get(CONFIG_MAP, space, "nothing") is None
        await kube.delete(CONFIG_MAP, space, "nothing", uid="none")
        with pytest.raises(KubeError) as caught:
            await kube.patch(CONFIG_MAP, space, "nothing", {"data": {"a": "1"}})
        assert caught.value.status == 404

    async def test_a_thing_is_made_once(self, kube: Kube, space: str) -> None:
        made = await kube.create(config_map(space, a="1"))
        assert made["metadata"]["uid"]
        assert made["metadata"]["resourceVersion"]
        with pytest.raises(KubeError) as caught:
            await kube.create(config_map(space, a="2"))
        assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
        found = await kube.get(CONFIG_MAP, space, "one")
        assert found is not None and found["data"] == {"a": "1"}

    async def test_apply_makes_changes_and_takes_away(self, kube: Kube, space: str) -> None:
        await kube.apply(config_map(space, a="1", b="2"))
        live = await kube.apply(config_map(space, a="3"))
        assert live["data"] == {"a": "3"}
        assert live["metadata"]["labels"] == LABELS

    async def test_apply_leaves_what_it_never_declared(self, kube: Kube, space: str) -> None:
        await kube.apply(config_map(space, a="1"))
        await kube.patch(CONFIG_MAP, space, "one", {"data": {"theirs": "2"}, "metadata": {"annotations": {"x": "y"}}})
        live = await kube.apply(config_map(space, a="3"))
        assert live["data"]["a"] == "3"
        assert live["metadata"]["annotations"] == {"x": "y"}

    async def test_an_apply_that_changes_nothing_keeps_the_version(self, kube: Kube, space: str) -> None:
        first = await kube.apply(config_map(space, a="1"))
        second = await kube.apply(config_map(space, a="1"))
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]

    async def test_a_merge_patch_takes_none_away(self, kube: Kube, space: str) -> None:
        await kube.create(config_map(space, a="1", b="2"))
        live = await kube.patch(CONFIG_MAP, space, "one", {"data": {"b": None, "c": "3"}})
        assert live["data"] == {"a": "1", "c": "3"}

    async def test_a_patch_of_another_version_is_refused(self, kube: Kube, space: str) -> None:
        made = await kube.create(config_map(space, a="1"))
        body: dict[str, Any] = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
        await kube.patch(CONFIG_MAP, space, "one", body | {"data": {"a": "2"}})
        with pytest.raises(KubeError) as caught:
            await kube.patch(CONFIG_MAP, space, "one", body | {"data": {"a": "3"}})
        assert caught.value.status == 409
        assert caught.value.passing

    async def test_only_the_very_object_is_deleted(self, kube: Kube, space: str) -> None:
        made = await kube.create(config_map(space))
        await kube.delete(CONFIG_MAP, space, "one", uid="00000000-0000-0000-0000-000000000000")
        assert await kube.get(CONFIG_MAP, space, "one") is not None
        await kube.delete(CONFIG_MAP, space, "one", uid=made["metadata"]["uid"])
        assert await kube.get(CONFIG_MAP, space, "one") is None

    @pytest.mark.parametrize(
        ("labels", "names"),
        [
            ("part=contract", ["one", "two"]), ("part=contract,kind=one", ["one"]),
            ("part=contract,kind!=one", ["two"]), ("part=contract,!kind", []), ("part=other", []),
            ("kind,part", ["one", "two"]),
        ],
    )  # fmt: skip
    async def test_lists_by_label(self, kube: Kube, space: str, labels: str, names: list[str]) -> None:
        await kube.create(config_map(space))
        other = config_map(space, "two")
        other["metadata"]["labels"]["kind"] = "two"
        await kube.create(other)
        await listed(kube, space, {"one", "two"})
        found = await kube.list(CONFIG_MAP, space, labels=labels)
        assert sorted(one["metadata"]["name"] for one in found) == names
        assert all(one["kind"] == "ConfigMap" for one in found)
