"""The client of the operator on a real API server, and what is relied on of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from kubernetes.aio.client.api_client import ApiClient

from agentmemory_operator.kube import CONFIG_MAP, Kube, KubeClient, KubeError
from agentmemory_operator.kubeconfig import find_cluster
from support.kube_contract import KubeContract, config_map
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster


class TestKubeClient(KubeContract):
    @pytest.fixture
    async def kube(self) -> AsyncIterator[Kube]:
        async with ApiClient(await find_cluster()) as api:
            yield KubeClient(api)

    @pytest.fixture
    def space(self) -> Iterator[str]:
        name = f"kube-{uuid4().hex[:8]}"
        kubectl("create", "namespace", name)
        yield name
        kubectl("delete", "namespace", name, "--wait=false")

    async def test_an_apply_takes_over_what_others_set(self, kube: Kube, space: str) -> None:
        await kube.apply(config_map(space, a="1"))
        kubectl("patch", "configmap", "one", "-n", space, "--patch", '{"data":{"a":"2"}}')
        assert (await kube.apply(config_map(space, a="1")))["data"] == {"a": "1"}

    async def test_what_is_refused_carries_the_servers_words(self, kube: Kube, space: str) -> None:
        with pytest.raises(KubeError, match="Invalid value") as caught:
            await kube.apply(config_map(space, "No_Name"))
        assert caught.value.status == 422
        assert not caught.value.passing

    async def test_a_server_that_is_not_there(self, space: str) -> None:
        configuration = await find_cluster()
        configuration.host = "https://127.0.0.1:1"
        async with ApiClient(configuration) as api:
            with pytest.raises(KubeError, match="does not answer") as caught:
                await KubeClient(api).get(CONFIG_MAP, space, "one")
        assert caught.value.passing
