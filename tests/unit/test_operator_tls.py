"""When the certificates of a memory's stores are issued anew, and what the status says of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentmemory_operator.certificates import new_authority
from agentmemory_operator.errors import Blocked
from agentmemory_operator.kube import CERTIFICATE, SECRET, Object
from agentmemory_operator.names import API_VERSION, KIND
from agentmemory_operator.objects import encode_secret
from agentmemory_operator.spec import read
from agentmemory_operator.tls import ISSUED_ANNOTATION, ensure_certificate
from agentmemory_operator.work import Memo, Work
from support.fake_kube import FakeKube
from support.operators import CONFIG

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def look(kube: FakeKube, asked: str | None = None) -> Work:
    """One reconciliation of a memory that has this value in its annotation."""
    annotations = {} if asked is None else {"agentmemory.io/rotate-certificates": asked}
    metadata = {"name": "research", "namespace": "team", "uid": "u", "generation": 1, "annotations": annotations}
    stores: Object = {"redis": {"managed": {}}, "postgres": {"managed": {}}}
    memory = read({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": stores})
    return Work(memory, kube, CONFIG, Memo(), clock=lambda: NOW)


async def test_each_is_issued_once_for_each_value(kube: FakeKube) -> None:
    first = await ensure_certificate(look(kube), "redis")
    assert await ensure_certificate(look(kube), "redis") == first
    asked = look(kube, "one")
    second = await ensure_certificate(asked, "redis")
    assert second["tls.crt"] != first["tls.crt"]
    assert second["ca.crt"] == first["ca.crt"], "whoever trusted the former one trusts this one"
    assert asked.status["credentials"]["certificates"] == "one"
    again = look(kube, "one")
    assert await ensure_certificate(again, "redis") == second
    assert again.status["credentials"]["certificates"] == "one"


async def test_an_annotation_that_goes_asks_for_nothing(kube: FakeKube) -> None:
    issued = await ensure_certificate(look(kube, "one"), "redis")
    later = look(kube)
    assert await ensure_certificate(later, "redis") == issued
    assert later.status["credentials"]["certificates"] == "one", "that is what was last carried out"


async def test_a_memory_that_is_paused_does_not_say_that_it_was_done(kube: FakeKube) -> None:
    issued = await ensure_certificate(look(kube, "one"), "redis")
    paused = look(kube, "two")
    with paused.looking_only():
        assert await ensure_certificate(paused, "redis") == issued
    assert paused.status["credentials"]["certificates"] == "one"


async def test_an_authority_that_is_no_pair_is_said_and_signs_nothing(kube: FakeKube) -> None:
    await ensure_certificate(look(kube), "redis")
    authority = kube.objects[SECRET.name, "team", "research-ca"]
    other = new_authority("another", NOW).certificate
    for certificate in (other, "none", ""):
        authority["data"]["tls.crt"] = encode_secret({"tls.crt": certificate})["tls.crt"]
        before = kube.writes
        with pytest.raises(Blocked, match="Secret research-ca"):
            await ensure_certificate(look(kube), "redis")
        assert kube.writes == before


async def test_an_issuer_that_is_no_longer_named_writes_nothing_any_more(kube: FakeKube) -> None:
    """Else cert-manager and the operator would undo each other's certificate for ever."""
    first = await ensure_certificate(look(kube), "redis")
    metadata = {"name": "research-redis-tls", "namespace": "team"}
    secret = kube.objects[SECRET.name, "team", "research-redis-tls"]
    secret["metadata"].setdefault("annotations", {})[ISSUED_ANNOTATION] = "research-redis-tls"
    kube.objects[CERTIFICATE.name, "team", "research-redis-tls"] = {
        "metadata": metadata | {"uid": "c", "labels": secret["metadata"]["labels"]}
    }
    second = await ensure_certificate(look(kube), "redis")
    assert second["tls.crt"] != first["tls.crt"]
    assert (CERTIFICATE.name, "team", "research-redis-tls") not in kube.objects
    assert await ensure_certificate(look(kube), "redis") == second
