"""The injector whole: over TLS on loopback, against a stand-in of the API server."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.client.configuration import Configuration

from agentmemory_operator.certificates import fingerprint
from agentmemory_operator.injector import main
from agentmemory_operator.injector.api import ApiReader
from agentmemory_operator.injector.config import InjectorConfig
from agentmemory_operator.injector.main import Injector
from support.injector import IMAGE, operations_of, pod, resource, review
from support.mounted import AUTHORITY, MountedSecret, leaf
from support.stub_kube_api import StubKubeApi

Session = aiohttp.ClientSession


@pytest.fixture
async def kube() -> AsyncIterator[StubKubeApi]:
    async with StubKubeApi().serve() as kube:
        await kube.put(resource())
        yield kube


@pytest.fixture
def mounted(tmp_path: Path) -> MountedSecret:
    mounted = MountedSecret(tmp_path)
    mounted.put(leaf())
    return mounted


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


@asynccontextmanager
async def running(kube: StubKubeApi, mounted: MountedSecret) -> AsyncIterator[Injector]:
    config = InjectorConfig(
        namespace="agentmemory", image=IMAGE, certificates=mounted.directory, host="127.0.0.1", port=0, ops_port=0
    )
    async with kube.client() as client:
        injector = Injector(config, ApiReader(client), look_every=0.01)
        await injector.start()
        try:
            yield injector
        finally:
            await injector.stop(linger=0.0)


async def get(session: Session, injector: Injector, path: str) -> tuple[int, str]:
    async with session.get(f"http://127.0.0.1:{injector.ops.port}{path}") as response:
        return response.status, await response.text()


async def until_ready(session: Session, injector: Injector) -> None:
    async with asyncio.timeout(60):
        while (await get(session, injector, "/readyz"))[0] != 200:
            await asyncio.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def url(injector: Injector, path: str = "/inject") -> str:
    return f"https://localhost:{injector.webhook.port}{path}"


async def inject(session: Session, injector: Injector, one: Any, path: str = "/inject") -> list[dict[str, Any]]:
    async with session.post(url(injector, path), json=review(one)) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return operations_of(await response.json())


async def test_pods_are_patched_over_tls(kube: StubKubeApi, mounted: MountedSecret, session: Session) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        assert await inject(session, injector, pod())
        assert await inject(session, injector, pod(None)) == []
        assert await inject(session, injector, pod(None), "/inject-namespace")
        assert await inject(session, injector, pod("false"), "/inject-namespace") == []
        for namespace in ("agentmemory", "kube-system"):
            async with session.post(url(injector), json=review(pod(), namespace=namespace)) as response:
                assert operations_of(await response.json()) == []


async def test_a_memory_made_a_moment_ago_is_found(kube: StubKubeApi, mounted: MountedSecret, session: Session) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        await until(lambda: kube.watching == 1)
        kube.break_connections()
        kube.silent = True
        await kube.put(resource("new"))
        paths = [one["path"] for one in await inject(session, injector, pod("new"))]
        assert "/spec/initContainers" in paths


async def test_what_is_no_review_is_refused_in_words(
    kube: StubKubeApi, mounted: MountedSecret, session: Session
) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        async with session.post(url(injector), data=b"{}") as response:
            assert response.status == 400
            assert "AdmissionReview" in await response.text()
        async with session.post(url(injector), data=io.BytesIO(b"x" * ((4 << 20) + 1))) as response:
            assert response.status == 413
        async with session.get(url(injector)) as response:
            assert response.status == 405
        assert await inject(session, injector, pod())


async def test_ready_is_when_certificate_and_memories_are_there(
    kube: StubKubeApi, tmp_path: Path, session: Session
) -> None:
    kube.down = True
    mounted = MountedSecret(tmp_path)
    async with running(kube, mounted) as injector:
        status, text = await get(session, injector, "/readyz")
        assert status == 503
        assert "no certificate yet" in text and "not been listed yet" in text
        assert (await get(session, injector, "/healthz"))[0] == 200
        assert injector.webhook.port == 0
        mounted.put(leaf())
        await until(lambda: injector.webhook.port != 0)
        status, text = await get(session, injector, "/readyz")
        assert (status, json.loads(text)["reasons"]) == (503, ["the AgentMemories have not been listed yet"])
        kube.down = False
        await until_ready(session, injector)


async def test_an_api_server_that_goes_away_leaves_it_ready(
    kube: StubKubeApi, mounted: MountedSecret, session: Session
) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        kube.down = True
        kube.break_connections()
        assert await inject(session, injector, pod())
        assert (await get(session, injector, "/readyz"))[0] == 200


async def test_a_part_that_ended_is_no_life(kube: StubKubeApi, mounted: MountedSecret, session: Session) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        (watch,) = (one for one in asyncio.all_tasks() if one.get_name() == "memories")
        watch.cancel()
        await asyncio.wait([watch])
        for path, code in (("/healthz", 500), ("/readyz", 503)):
            status, text = await get(session, injector, path)
            assert (status, "memories has ended" in text) == (code, True)


async def test_a_port_that_is_taken_is_no_life(kube: StubKubeApi, mounted: MountedSecret, session: Session) -> None:
    async with running(kube, mounted) as first:
        await until_ready(session, first)
        config = InjectorConfig(
            namespace="agentmemory",
            image=IMAGE,
            certificates=mounted.directory,
            host="127.0.0.1",
            port=first.webhook.port,
            ops_port=0,
        )
        async with kube.client() as client:
            second = Injector(config, ApiReader(client), look_every=0.01)
            await second.start()
            async with asyncio.timeout(60):
                while (await get(session, second, "/healthz"))[0] == 200:
                    await asyncio.sleep(0.005)
            assert "webhook has ended" in (await get(session, second, "/healthz"))[1]
            assert "does not listen" in (await get(session, second, "/readyz"))[1]
            await second.stop(linger=0.0)


async def test_what_prometheus_is_told(kube: StubKubeApi, mounted: MountedSecret, session: Session) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        await inject(session, injector, pod())
        await inject(session, injector, pod("another"))
        _, text = await get(session, injector, "/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert values['agentmemory_injector_admissions_total{result="injected"}'] == "1.0"
        assert values['agentmemory_injector_admissions_total{result="missed"}'] == "1.0"
        assert values['agentmemory_injector_admissions_total{result="failed"}'] == "0.0"
        assert values["agentmemory_injector_admission_seconds_count"] == "2.0"
        assert values["agentmemory_injector_certificate_failures_total"] == "0.0"
        assert float(values["agentmemory_injector_certificate_expiry_timestamp_seconds"]) > 1.7e9
        assert 0 <= float(values["agentmemory_injector_cache_age_seconds"]) < 60


async def test_certificates_change_and_no_request_fails(
    kube: StubKubeApi, mounted: MountedSecret, session: Session
) -> None:
    """Requests on connections of their own, and on one that is kept, while the files change under both."""
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        ended = asyncio.Event()
        counts = [0, 0]
        pairs = [leaf() for _ in range(5)]

        async def ask(place: int, headers: dict[str, str]) -> None:
            while not ended.is_set():
                async with session.post(url(injector), json=review(pod()), headers=headers) as response:
                    assert response.status == 200
                    assert operations_of(await response.json())
                counts[place] += 1

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask(0, {"Connection": "close"}))
            tasks.create_task(ask(1, {}))
            for pair in pairs:
                mounted.write(pair.certificate, pairs[0].key[:60])
                mounted.put(pair)
                await _until_shown(injector, pair.certificate)
                await _until_more(counts)
            ended.set()


async def _until_more(counts: list[int]) -> None:
    """Every one of them has grown."""
    before = list(counts)
    await until(lambda: all(now > then for now, then in zip(counts, before, strict=True)))


async def _until_shown(injector: Injector, certificate: str) -> None:
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    async with asyncio.timeout(60):
        while True:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", injector.webhook.port, ssl=context, server_hostname="localhost"
            )
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            if fingerprint(ssl.DER_cert_to_PEM_cert(shown)) == fingerprint(certificate):
                return
            await asyncio.sleep(0.005)


async def test_it_goes_on_answering_while_it_leaves(
    kube: StubKubeApi, mounted: MountedSecret, session: Session
) -> None:
    async with running(kube, mounted) as injector:
        await until_ready(session, injector)
        assert await inject(session, injector, pod())
        leaving = asyncio.create_task(injector.stop(linger=3600.0))
        await asyncio.sleep(0)
        status, text = await get(session, injector, "/readyz")
        assert (status, "it is stopping" in text) == (503, True)
        assert (await get(session, injector, "/healthz"))[0] == 200
        for _ in range(2):
            async with session.post(url(injector), json=review(pod())) as response:
                assert operations_of(await response.json())
                assert response.headers["Connection"] == "close"
        leaving.cancel()
        await asyncio.wait([leaving])
        port = injector.webhook.port
        await injector.stop(linger=0.0)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_run_serves_until_it_is_told_to_stop(
    kube: StubKubeApi, mounted: MountedSecret, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def configuration() -> Configuration:
        return Configuration(host=kube.url)

    monkeypatch.setattr(main, "find_cluster", configuration)
    monkeypatch.setattr(main, "LINGER", 0.0)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    ops_port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    environment = {
        "AGENTMEMORY_NAMESPACE": "agentmemory",
        "AGENTMEMORY_SIDECAR_IMAGE": "sidecar:1",
        "AGENTMEMORY_WEBHOOK_CERT_DIR": str(mounted.directory),
        "AGENTMEMORY_WEBHOOK_PORT": "0",
        "AGENTMEMORY_OPS_PORT": str(ops_port),
    }
    task = asyncio.create_task(main.run(environment))
    async with asyncio.timeout(60):
        while not await _answers(session, f"http://127.0.0.1:{ops_port}/readyz"):
            await asyncio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)
        await task


async def _answers(session: Session, address: str) -> bool:
    try:
        async with session.get(address) as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False
