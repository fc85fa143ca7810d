"""Namespaces that go take their rights with them, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agentmemory_operator import strays
from agentmemory_operator.kube import POD, Kind, KubeError, Object
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.names import INJECT_LABEL
from agentmemory_operator.program import find_watchable
from support.fake_kube import FakeKube
from support.operators import CONFIG


class Forbidding(FakeKube):
    """Namespaces `forbidden` answer nothing but this error."""

    def __init__(self, *forbidden: str, status: int = 403) -> None:
        super().__init__()
        self.forbidden = forbidden
        self.status = status

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        if namespace in self.forbidden:
            raise KubeError(self.status, "Forbidden", f"cannot list {kind.plural} in {namespace}")
        return await super().list(kind, namespace, labels=labels, fields=fields)


async def test_what_may_be_watched_is_watched() -> None:
    assert await find_watchable(Forbidding("gone"), ("gone", "there")) == ["there"]
    assert await find_watchable(Forbidding(), ()) == []


async def test_none_of_some_is_not_all() -> None:
    with pytest.raises(KubeError):
        await find_watchable(Forbidding("gone"), ("gone",))


async def test_an_api_server_that_is_away_narrows_nothing() -> None:
    with pytest.raises(KubeError):
        await find_watchable(Forbidding("red", status=0), ("red", "blue"))


async def test_pods_without_a_sidecar_are_found_beside_a_namespace_that_is_gone() -> None:
    kube = Forbidding("gone")
    metadata = {"name": "agent", "namespace": "there", "uid": "p", "labels": {INJECT_LABEL: "research"}}
    kube.objects[POD.name, "there", "agent"] = {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}}
    config = replace(CONFIG, watch_namespaces=("gone", "there"))
    assert await strays.sweep(kube, config, Metrics(), set(), now=datetime.now(UTC)) == {"p"}
