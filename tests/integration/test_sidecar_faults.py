"""Faults of the stores, seen through the API: typed problems, nothing half applied, and all well when they return."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentmemory.local.server import Server
from agentmemory.local.stores import LocalStores
from agentmemory_engine.redis import Credentials
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from support.memories import admin_postgres, admin_redis
from support.sidecars import Answer, Running, make_config, write_login

DOCUMENT = "/v1/agents/a/working-memory"
TURNS = "/v1/agents/a/turns"
EVENTS = "/v1/agents/a/events"
TURN = {"events": [{"content": "new"}], "working_memory": {"set": {"new": True}}}


@asynccontextmanager
async def stopped(server: Server) -> AsyncIterator[None]:
    await server.stop()
    try:
        yield
    finally:
        await server.start()


@asynccontextmanager
async def paused(server: Server) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@asynccontextmanager
async def configured(stores: LocalStores, **values: Any) -> AsyncIterator[None]:
    """Valkey with other settings for a while."""
    async with admin_redis(stores) as admin:
        before = {name: (await admin.config_get(name))[name] for name in values}
        for name, value in values.items():
            await admin.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                await admin.config_set(name, value)


async def metrics_of(sidecar: Running) -> dict[str, float]:
    """Each sample without buckets, by name and the value of its labels."""
    text = (await sidecar.ops("/metrics")).body.decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def contents(sidecar: Running) -> list[str]:
    answer = await sidecar.send("GET", EVENTS)
    assert answer.status == 200 and answer.json()["degraded"] == [], answer.body
    return [event["content"] for event in answer.json()["events"]]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


def assert_unavailable(answer: Answer, store: str) -> None:
    assert (answer.status, answer.code) == (503, "store-unavailable")
    assert answer.json()["store"] == store


@pytest.mark.parametrize("fault", [stopped, paused])
async def test_without_redis_what_can_be_served_is_and_the_rest_says_why(
    stores: LocalStores, sidecar: Running, fault: Callable[[Server], Any]
) -> None:
    await sidecar.send("PUT", DOCUMENT, {"old": True})
    receipt = await sidecar.turn("a", "before")
    await sidecar.wait("a", receipt["position"])
    async with fault(stores.valkey):
        assert_unavailable(await sidecar.send("GET", DOCUMENT), "redis")
        assert_unavailable(await sidecar.send("POST", TURNS, TURN), "redis")
        assert_unavailable(await sidecar.send("PUT", DOCUMENT, {}), "redis")
        page = (await sidecar.send("GET", EVENTS)).json()
        assert ([event["content"] for event in page["events"]], page["degraded"]) == (["before"], ["unflushed"])
        hydration = (await sidecar.send("POST", "/v1/agents/a/hydrate", {})).json()
        assert hydration["cold_start"] is None and "working_memory" in hydration["degraded"]
        status = (await sidecar.send("GET", "/v1/consolidation")).json()
        assert (status["degraded"], status["pending"], status["persistence"]) == (["redis"], None, "Unknown")
        await assert_not_ready(sidecar, "redis")
        metrics = await metrics_of(sidecar)
        assert (metrics["agentmemory_store_up redis"], metrics["agentmemory_store_up postgres"]) == (0.0, 1.0)
        assert "agentmemory_consolidation_lag_seconds" not in metrics and metrics["agentmemory_dead_letters"] == 0.0
    await sidecar.wait_until_ready()
    assert await contents(sidecar) == ["before"]
    assert (await sidecar.send("GET", DOCUMENT)).json() == {"old": True}
    assert (await sidecar.send("POST", TURNS, TURN)).status == 201


@pytest.mark.parametrize("fault", [stopped, paused])
async def test_without_postgres_turns_are_taken_and_become_durable_when_it_returns(
    stores: LocalStores, sidecar: Running, fault: Callable[[Server], Any]
) -> None:
    receipt = await sidecar.turn("a", "before")
    await sidecar.wait("a", receipt["position"])
    async with fault(stores.postgres):
        receipt = (await sidecar.send("POST", TURNS, TURN)).json()
        assert (await sidecar.send("GET", DOCUMENT)).json() == {"new": True}
        assert (await sidecar.send("GET", "/v1/agents/a/messages")).json()["degraded"] == ["older"]
        assert_unavailable(await sidecar.send("GET", EVENTS), "postgres")
        assert_unavailable(await sidecar.send("GET", "/v1/dead-letters"), "postgres")
        assert_unavailable(await sidecar.send("GET", "/v1/agents/unknown/working-memory"), "postgres")
        barrier = {"positions": [{"agent": "a", "position": receipt["position"]}], "timeout_seconds": 0}
        assert_unavailable(await sidecar.send("POST", "/v1/consolidation/barrier", barrier), "postgres")
        await assert_not_ready(sidecar, "postgres")

        async def lag_grows() -> bool:
            metrics = await metrics_of(sidecar)
            assert (metrics["agentmemory_store_up redis"], metrics["agentmemory_store_up postgres"]) == (1.0, 0.0)
            assert metrics["agentmemory_pending_turns"] == 1.0 and "agentmemory_dead_letters" not in metrics
            return metrics["agentmemory_consolidation_lag_seconds"] > 1.0

        await until(lag_grows)
        status = (await sidecar.send("GET", "/v1/consolidation")).json()
        assert (status["degraded"], status["pending"], status["dead_letters"]) == (["postgres"], 1, None)
    await sidecar.wait_until_ready()
    await sidecar.wait("a", receipt["position"])
    assert await contents(sidecar) == ["before", "new"]


async def test_a_full_redis_applies_nothing_of_a_turn(stores: LocalStores, sidecar: Running) -> None:
    await sidecar.send("PUT", DOCUMENT, {"old": True})
    receipt = await sidecar.turn("a", "before")
    await sidecar.wait("a", receipt["position"])
    key = {"Idempotency-Key": "full"}
    async with configured(stores, maxmemory=1):
        for method, path, body in (("POST", TURNS, TURN), ("PUT", DOCUMENT, {}), ("PATCH", DOCUMENT, {"x": 1})):
            answer = await sidecar.send(method, path, body, headers=key)
            assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "journal-full", "5")
        assert (await sidecar.send("GET", DOCUMENT)).json() == {"old": True}
        assert await contents(sidecar) == ["before"]
    retried = await sidecar.send("POST", TURNS, TURN, headers=key)
    assert (retried.status, retried.json()["repeated"]) == (201, False)
    assert await contents(sidecar) == ["before", "new"]


async def test_a_redis_that_may_evict_takes_no_turns(stores: LocalStores, sidecar: Running) -> None:
    async with configured(stores, **{"maxmemory-policy": "allkeys-lru"}):

        async def is_noticed() -> bool:
            ready = await sidecar.ops("/readyz")
            return ready.status == 503 and "noeviction" in ready.json()["reasons"].get("redis", "")

        await until(is_noticed)
        answer = await sidecar.send("POST", TURNS, TURN)
        assert (answer.status, answer.code) == (503, "wrong-eviction-policy")
        assert "CONFIG SET maxmemory-policy noeviction" in answer.json()["detail"]
    await sidecar.wait_until_ready()
    assert await contents(sidecar) == []
    assert (await sidecar.send("POST", TURNS, TURN)).status == 201


async def assert_not_ready(sidecar: Running, *parts: str) -> None:
    """Within the moment for which an answer counts as fresh, it says so, and names these parts."""

    async def says_so() -> bool:
        ready = await sidecar.ops("/readyz")
        return ready.status == 503 and not ready.json()["ready"] and set(parts) <= set(ready.json()["reasons"])

    await until(says_so)
    assert (await sidecar.ops("/healthz")).status == 200


async def assert_refused(config: Config, code: str, words: str) -> None:
    async with Running(config) as sidecar:
        for method, path, body in (("POST", TURNS, TURN), ("GET", DOCUMENT, None)):
            answer = await sidecar.send(method, path, body)
            assert (answer.status, answer.code) == (503, code)
            assert words in answer.json()["detail"]
        ready = await sidecar.ops("/readyz")
        assert ready.status == 503 and words in str(ready.json()["reasons"])
        assert (await sidecar.ops("/healthz")).status == 200


async def test_a_newer_schema_is_refused(stores: LocalStores, settings: Settings, config: Config) -> None:
    connection = await admin_postgres(stores)
    await connection.execute(
        f'INSERT INTO "{settings.keys.schema}".schema_migrations (version, name, checksum, min_sidecar)'
        " VALUES (9999, 'later', '', '99.0.0')"
    )
    await connection.close()
    await assert_refused(config, "schema-mismatch", "needs agentmemory 99.0.0")


async def test_a_schema_that_is_not_there_says_how_to_make_it(
    stores: LocalStores, settings: Settings, config: Config
) -> None:
    connection = await admin_postgres(stores)
    await connection.execute(f'DROP SCHEMA "{settings.keys.schema}" CASCADE')
    await connection.close()
    await assert_refused(config, "schema-mismatch", "`prepare`")


async def test_another_number_of_shards_is_refused(config: Config) -> None:
    other = replace(config, settings=replace(config.settings, shards=8))
    await assert_refused(other, "foreign-store", "set `shards: 4`")


async def test_a_redis_of_another_memory_is_refused(stores: LocalStores, settings: Settings, config: Config) -> None:
    async with admin_redis(stores) as admin:
        await admin.set(settings.keys.identity, "00000000-0000-0000-0000-000000000000")
    await assert_refused(config, "foreign-store", "another AgentMemory")


async def test_a_refused_login_says_so_and_shows_no_password(
    stores: LocalStores, settings: Settings, login: Credentials, tmp_path: Path
) -> None:
    wrong = Credentials(login.username, "wrong-s3cret")
    config = make_config(stores, settings, write_login(tmp_path / "wrong", wrong))
    async with Running(config) as sidecar:
        answer = await sidecar.send("GET", EVENTS)
        assert_unavailable(answer, "postgres")
        ready = await sidecar.ops("/readyz")
        assert set(ready.json()["reasons"]) >= {"postgres", "redis"}
        assert b"s3cret" not in answer.body + ready.body


async def test_it_listens_before_its_stores_do_and_comes_good(stores: LocalStores, config: Config) -> None:
    await asyncio.gather(stores.valkey.stop(), stores.postgres.stop())
    try:
        async with Running(config) as sidecar:
            await assert_not_ready(sidecar, "postgres", "redis")
            answer = await sidecar.send("POST", TURNS, TURN)
            assert (answer.status, answer.code) == (503, "store-unavailable")
            assert (await metrics_of(sidecar))["agentmemory_store_up redis"] == 0.0
            await stores.valkey.start()
            await stores.postgres.start()
            await sidecar.wait_until_ready()
            assert (await sidecar.send("POST", TURNS, TURN)).status == 201
    finally:
        await asyncio.gather(stores.valkey.start(), stores.postgres.start())


async def test_a_rotated_login_needs_no_restart(
    stores: LocalStores, settings: Settings, login: Credentials, config: Config, sidecar: Running
) -> None:
    await sidecar.turn("a", "before")
    write_login(config.credentials.directory, Credentials(login.username, "rotated"))
    connection = await admin_postgres(stores)
    await connection.execute(f"ALTER ROLE \"{login.username}\" PASSWORD 'rotated'")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", login.username
    )
    await connection.close()
    async with admin_redis(stores) as admin:
        await admin.execute_command("ACL", "SETUSER", login.username, "resetpass", ">rotated")
        await admin.execute_command("CLIENT", "KILL", "USER", login.username)
    await sidecar.wait_until_ready()
    assert (await sidecar.send("POST", TURNS, TURN)).status == 201
    assert await contents(sidecar) == ["before", "new"]


async def stored(stores: LocalStores, settings: Settings) -> int:
    connection = await admin_postgres(stores)
    count: int = await connection.fetchval(f'SELECT count(*) FROM "{settings.keys.schema}".memory_events')
    await connection.close()
    return count


async def test_stopping_flushes_and_gives_the_shards_back(
    stores: LocalStores, settings: Settings, config: Config
) -> None:
    slow = replace(config, settings=replace(settings, max_delay=3600.0))
    async with Running(slow) as sidecar:
        await sidecar.wait_until_ready()
        for number in range(20):
            await sidecar.turn(f"agent-{number}", "x")
        assert await stored(stores, settings) == 0
    assert await stored(stores, settings) == 20
    connection = await admin_postgres(stores)
    owners = await connection.fetch(f'SELECT owner FROM "{settings.keys.schema}".shards WHERE lease_until > now()')
    await connection.close()
    assert owners == []


async def test_stopping_is_bounded_when_a_store_hangs_and_loses_nothing(
    stores: LocalStores, settings: Settings, config: Config
) -> None:
    slow = replace(config, settings=replace(settings, max_delay=3600.0), stop_timeout=0.5)
    sidecar = Running(slow, postgres_timeout=60.0)
    async with sidecar:
        await sidecar.wait_until_ready()
        await sidecar.turn("a", "kept")
        async with paused(stores.postgres), asyncio.timeout(30):
            stopping = asyncio.create_task(sidecar.sidecar.stop())
            while not sidecar.memory.ended_workers():
                await asyncio.sleep(0.01)
            assert (await sidecar.ops("/healthz")).status == 200
            await stopping
    assert await stored(stores, settings) == 0
    async with Running(config) as sidecar:
        await sidecar.wait_until_ready()
        assert await contents(sidecar) == ["kept"]


async def test_a_request_in_progress_is_answered_before_the_end(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    running = Running(config)
    async with running:
        await running.wait_until_ready()
        record = running.memory.record

        async def slow(*args: Any, **kwargs: Any) -> Any:
            begun.set()
            await go_on.wait()
            return await record(*args, **kwargs)

        monkeypatch.setattr(running.memory, "record", slow)
        request = asyncio.create_task(running.send("POST", TURNS, TURN))
        await begun.wait()
        stopping = asyncio.create_task(running.sidecar.stop())

        async def is_stopping() -> bool:
            ready = await running.ops("/readyz")
            return ready.status == 503 and "stopping" in str(ready.json())

        await until(is_stopping)
        assert (await running.ops("/healthz")).status == 200
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.sidecar.port)
        go_on.set()
        assert (await request).status == 201
        await stopping


async def test_a_worker_that_has_ended_is_bad_health(sidecar: Running) -> None:
    [worker] = [task for task in asyncio.all_tasks() if task.get_name() == "consolidation"]
    worker.cancel()
    await asyncio.wait({worker})
    health = await sidecar.ops("/healthz")
    assert health.status == 500 and "consolidation" in health.json()["reasons"]
    assert (await sidecar.ops("/readyz")).status == 503


async def test_the_metrics_follow_the_work(sidecar: Running) -> None:
    started = time.time()
    receipt = await sidecar.turn("a", "one", "two")
    await sidecar.wait("a", receipt["position"])
    await sidecar.send("GET", "/v1/agents/a/nothing")

    async def worked() -> bool:
        metrics = await metrics_of(sidecar)
        return metrics["agentmemory_last_consolidation_timestamp_seconds"] > started

    await until(worked)
    metrics = await metrics_of(sidecar)
    assert metrics["agentmemory_events_consolidated_total"] == 2.0
    assert (metrics["agentmemory_owned_shards"], metrics["agentmemory_openings_total"]) == (4.0, 4.0)
    count = "agentmemory_http_request_seconds_count"
    assert metrics[f"{count} POST /v1/agents/{{agent}}/turns 2xx"] == 1.0
    assert metrics[f"{count} GET unmatched 4xx"] == 1.0
    open_metrics = await sidecar.ops("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert open_metrics.body.endswith(b"# EOF\n")


UNREACHABLE = {
    "no such name": ("redis://nowhere.invalid:6379", "postgresql://nowhere.invalid:5432/agentmemory"),
    "nobody there": ("redis://127.0.0.1:1", "postgresql://127.0.0.1:1/agentmemory"),
    "no TLS there": ("rediss://127.0.0.1:{port}", "postgresql://127.0.0.1:{port}/agentmemory?sslmode=require"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
async def test_without_stores_it_listens_at_once_and_says_why_it_waits_only_once(
    config: Config, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url, dsn = (text.format(port=server.sockets[0].getsockname()[1]) for text in UNREACHABLE[case])
    assert config.redis is not None
    async with Running(replace(config, redis=replace(config.redis, url=url), postgres_dsn=dsn)) as running:
        assert (await running.ops("/healthz")).status == 200
        assert set((await running.ops("/readyz")).json()["reasons"]) == {"redis", "postgres"}
        assert (await running.send("POST", TURNS, TURN)).code == "store-unavailable"
        assert (await running.send("GET", EVENTS)).code == "store-unavailable"
        async with asyncio.timeout(60):
            while await failures(running, "consolidation") < 5:
                await asyncio.sleep(0.02)
    server.close()
    await server.wait_closed()
    waits = [message for message in caplog.messages if message.startswith("consolidation waits: redis: ")]
    assert len(waits) == len(set(waits)) <= 2
    assert waits


async def failures(running: Running, part: str) -> float:
    text = (await running.ops("/metrics")).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["agentmemory_failures"].samples
    return sum(
        sample.value for sample in samples if sample.labels.get("part") == part and sample.name.endswith("total")
    )
