"""Who may ask at all, and how every refusal looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentmemory.local.stores import LocalStores
from agentmemory_engine.settings import Settings
from support.sidecars import Running, open_sidecar

STATUS = "/v1/consolidation"
FOREIGN = ["attacker.example", "attacker.example:7070", "127.0.0.1.attacker.example", "10.0.0.1"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sidecar(stores: LocalStores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One for the whole module: what is refused leaves no trace."""
    settings = Settings(namespace="test", name="sidecar-guard", shards=4, max_delay=0.05, instance="one")
    async with open_sidecar(stores, settings, tmp_path_factory.mktemp("sidecar")) as running:
        yield running


async def test_a_caller_that_does_not_name_itself_is_refused(sidecar: Running) -> None:
    for headers in ({}, {"AgentMemory-Client": ""}):
        answer = await sidecar.send("GET", STATUS, headers=headers, client=False)
        assert (answer.status, answer.code) == (403, "client-header-missing")
    assert (await sidecar.send("GET", STATUS)).status == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:7070", "127.0.0.1.attacker.example", "10.0.0.1"]
)
@pytest.mark.parametrize("path", [STATUS, "/docs", "/nowhere"])
async def test_a_foreign_host_is_refused(sidecar: Running, host: str, path: str) -> None:
    answer = await sidecar.send("GET", path, headers={"Host": host})
    assert (answer.status, answer.code) == (403, "foreign-origin")


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:7070"])
async def test_every_name_of_this_machine_is_accepted(sidecar: Running, host: str) -> None:
    assert (await sidecar.send("GET", STATUS, headers={"Host": host})).status == 200


@pytest.mark.parametrize("origin", ["https://attacker.example", "null", "http://localhost:7070", ""])
async def test_a_page_is_refused_whatever_its_origin(sidecar: Running, origin: str) -> None:
    for path in (STATUS, "/openapi.json"):
        answer = await sidecar.send("GET", path, headers={"Origin": origin})
        assert (answer.status, answer.code) == (403, "foreign-origin")


async def test_a_request_without_a_host_is_refused(sidecar: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.sidecar.port)
    writer.write(b"GET /v1/consolidation HTTP/1.0\r\nAgentMemory-Client: t\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.0 403") and b"foreign-origin" in answer


async def test_the_description_is_for_everyone_on_this_machine(sidecar: Running) -> None:
    document = await sidecar.send("GET", "/openapi.json", client=False)
    page = await sidecar.send("GET", "/docs", client=False)
    assert (document.status, document.json()["openapi"]) == (200, "3.1.0")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_unknown_routes_and_methods_are_problems(sidecar: Running) -> None:
    unknown = await sidecar.send("GET", "/v1/nothing")
    assert (unknown.status, unknown.code) == (404, "not-found")
    method = await sidecar.send("PUT", "/v1/agents/a/turns", {})
    assert (method.status, method.code, method.headers["Allow"]) == (405, "method-not-allowed", "POST")


async def test_every_answer_has_an_id_of_its_own(sidecar: Running) -> None:
    answers = [await sidecar.send("GET", path) for path in (STATUS, "/v1/nothing", "/openapi.json")]
    assert len({answer.headers["AgentMemory-Request-Id"] for answer in answers}) == 3


async def test_health_is_not_on_the_api_and_the_api_not_beside_health(sidecar: Running) -> None:
    assert (await sidecar.send("GET", "/metrics")).status == 404
    assert (await sidecar.send("GET", "/readyz")).status == 404
    assert (await sidecar.ops(STATUS)).status == 404


async def test_what_nobody_foresaw_tells_a_client_nothing_and_the_log_no_memory(
    sidecar: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("what the agent said")

    monkeypatch.setattr(sidecar.memory, "recent", fail)
    answer = await sidecar.send("GET", "/v1/agents/a/messages")
    assert (answer.status, answer.code) == (500, "internal")
    assert b"what the agent said" not in answer.body
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert answer.json()["instance"] in record.getMessage() and "/v1/agents/{agent}/messages" in record.getMessage()
