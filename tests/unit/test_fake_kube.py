"""The API server in memory keeps the contract that the real one is checked by."""

from __future__ import annotations

import pytest

from agentmemory_operator.kube import Kube
from support.fake_kube import FakeKube
from support.kube_contract import KubeContract


class TestFakeKube(KubeContract):
    @pytest.fixture
    def kube(self) -> Kube:
        return FakeKube()

    @pytest.fixture
    def space(self) -> str:
        return "team"
