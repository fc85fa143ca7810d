from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentmemory_operator import certificates, webhook
from agentmemory_operator.kube import SECRET, WEBHOOK_CONFIGURATION
from agentmemory_operator.objects import encode_secret, secret_data
from support.fake_kube import FakeKube
from support.operators import CONFIG as BASE
from support.operators import Clock

CONFIG = replace(BASE, webhook_configuration="injector")
LEAF, AUTHORITY = CONFIG.webhook_secret, "agentmemory-injector-ca"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kube() -> FakeKube:
    kube = FakeKube()
    hook = {
        "name": "pod.injector",
        "clientConfig": {"service": {"name": "s", "namespace": "system", "path": "/inject"}},
    }
    kube.objects[WEBHOOK_CONFIGURATION.name, None, "injector"] = {
        "apiVersion": WEBHOOK_CONFIGURATION.api_version, "kind": WEBHOOK_CONFIGURATION.name,
        "metadata": {"name": "injector", "uid": "u", "resourceVersion": "1", "generation": 1},
        "webhooks": [hook],
    }  # fmt: skip
    return kube


def data(kube: FakeKube, name: str) -> dict[str, str]:
    return secret_data(kube.objects[SECRET.name, CONFIG.namespace, name])


def trusted(kube: FakeKube) -> str:
    hooks: list[dict[str, Any]] = kube.objects[WEBHOOK_CONFIGURATION.name, None, "injector"]["webhooks"]
    return b64decode(hooks[0]["clientConfig"]["caBundle"]).decode()


async def keep(kube: FakeKube, clock: Clock) -> None:
    await webhook.keep(kube, CONFIG, clock=clock)


async def test_a_certificate_that_the_api_server_trusts(kube: FakeKube, clock: Clock) -> None:
    await keep(kube, clock)
    leaf = data(kube, LEAF)
    assert certificates.signed_by(leaf["tls.crt"], trusted(kube))
    assert certificates.covers(leaf["tls.crt"], ["agentmemory-injector.system.svc"])
    before = kube.writes
    await keep(kube, clock)
    assert kube.writes == before


async def test_it_is_renewed_in_time_under_the_same_authority(kube: FakeKube, clock: Clock) -> None:
    await keep(kube, clock)
    first, authority = data(kube, LEAF)["tls.crt"], trusted(kube)
    clock.pass_by(timedelta(days=50).total_seconds())
    await keep(kube, clock)
    assert data(kube, LEAF)["tls.crt"] == first
    clock.pass_by(timedelta(days=15).total_seconds())
    await keep(kube, clock)
    assert data(kube, LEAF)["tls.crt"] != first
    assert trusted(kube) == authority


async def test_a_renewed_authority_trusts_the_certificate_of_before(kube: FakeKube, clock: Clock) -> None:
    await keep(kube, clock)
    leaf, authority = data(kube, LEAF)["tls.crt"], trusted(kube)
    clock.pass_by(timedelta(days=9 * 365 + 60).total_seconds())
    await keep(kube, clock)
    assert trusted(kube) != authority
    assert certificates.signed_by(leaf, trusted(kube))
    assert certificates.signed_by(data(kube, LEAF)["tls.crt"], authority)


@pytest.mark.parametrize("name", [LEAF, AUTHORITY])
@pytest.mark.parametrize("spoilt", [{}, {"tls.crt": "no certificate", "tls.key": "no key"}])
async def test_a_secret_that_is_no_good_is_made_anew(
    kube: FakeKube, clock: Clock, name: str, spoilt: dict[str, str]
) -> None:
    await keep(kube, clock)
    kube.objects[SECRET.name, CONFIG.namespace, name]["data"] = encode_secret(spoilt)
    await keep(kube, clock)
    assert certificates.signed_by(data(kube, LEAF)["tls.crt"], trusted(kube))


async def test_without_a_configuration_it_is_ready_for_one(kube: FakeKube, clock: Clock) -> None:
    del kube.objects[WEBHOOK_CONFIGURATION.name, None, "injector"]
    await keep(kube, clock)
    assert data(kube, LEAF)["tls.crt"]
