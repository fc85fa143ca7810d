"""The sidecar as a program: prepare, serve, drain, their exit statuses, and what they write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import asyncpg
import psutil
import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.keys import Keys
from agentmemory_sidecar.credentials import CredentialFiles
from support.fleet import SidecarProcess
from support.memories import admin_postgres, admin_redis, postgres_dsn
from support.sidecars import CLIENT

MANIFEST = """\
apiVersion: agentmemory.io/v1alpha1
kind: AgentMemory
metadata: {name: %s, namespace: test}
spec:
  shards: 4
  workingMemory: {ttl: 1h}
  consolidation: {maxDelay: 1h}
  embedding: {provider: None}
"""


class Place:
    """A directory with a manifest and the environment of the sidecar's programs."""

    def __init__(self, directory: Path, stores: LocalStores, name: str) -> None:
        self.directory = directory
        self.keys = Keys("test", name)
        self.credentials = CredentialFiles(directory / "credentials")
        (directory / "memory.yaml").write_text(MANIFEST % name)
        (directory / "redis.admin").write_text(stores.redis_admin_password + "\n")
        (directory / "postgres.admin").write_text(stores.postgres_admin_password + "\n")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTMEMORY_", "PG"))}
        self.environment: dict[str, str] = inherited | {
            "AGENTMEMORY_CONFIG": str(directory / "memory.yaml"),
            "AGENTMEMORY_REDIS_URL": stores.redis_url,
            "AGENTMEMORY_POSTGRES_DSN": postgres_dsn(stores),
            "AGENTMEMORY_CREDENTIALS_DIR": str(self.credentials.directory),
            "AGENTMEMORY_OPS_HOST": "127.0.0.1",
            "AGENTMEMORY_LEASE": "1",
            "AGENTMEMORY_LOG_FORMAT": "json",
        }
        self.administrators = {
            "AGENTMEMORY_ADMIN_REDIS_USERNAME": stores.redis_admin_user,
            "AGENTMEMORY_ADMIN_REDIS_PASSWORD_FILE": str(directory / "redis.admin"),
            "AGENTMEMORY_ADMIN_POSTGRES_USERNAME": "postgres",
            "AGENTMEMORY_ADMIN_POSTGRES_PASSWORD_FILE": str(directory / "postgres.admin"),
        }

    async def run(self, command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        arguments = [sys.executable, "-m", "agentmemory_sidecar", *command.split()]
        environment = self.environment | changes
        return await asyncio.to_thread(
            subprocess.run, arguments, env=environment, capture_output=True, text=True, timeout=50
        )

    async def prepare(self, **changes: str) -> subprocess.CompletedProcess[str]:
        return await self.run("prepare", **(self.administrators | changes))

    def sidecar(self, instance: str = "one", **changes: str) -> SidecarProcess:
        return SidecarProcess(self.directory, instance, self.environment | changes)

    async def stored(self, stores: LocalStores) -> int:
        connection = await admin_postgres(stores)
        count: int = await connection.fetchval(f'SELECT count(*) FROM "{self.keys.schema}".memory_events')
        await connection.close()
        return count

    async def owners(self, stores: LocalStores) -> list[str]:
        """Who holds a lease on a shard."""
        connection = await admin_postgres(stores)
        rows = await connection.fetch(f'SELECT owner FROM "{self.keys.schema}".shards WHERE lease_until > now()')
        await connection.close()
        return [row["owner"] for row in rows]


@pytest.fixture
def place(tmp_path: Path, stores: LocalStores) -> Place:
    return Place(tmp_path, stores, f"process-{os.urandom(4).hex()}")


async def wait_until_ready(sidecar: SidecarProcess) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            assert sidecar.running
            try:
                async with session.get(f"{sidecar.ops_url}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def say(sidecar: SidecarProcess, agent: str, content: str, headers: Mapping[str, str] = CLIENT) -> None:
    body = {"events": [{"content": content}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{sidecar.url}/v1/agents/{agent}/turns", json=body, headers=headers) as response,
    ):
        assert response.status == 201


def lines(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


def messages(text: str) -> list[str]:
    return [line["message"] for line in lines(text)]


async def test_prepare_makes_what_is_missing_and_nothing_twice(place: Place, stores: LocalStores) -> None:
    first = await place.prepare()
    assert first.returncode == 0, first.stderr
    login = place.credentials.login("redis")()
    made = {path.name: path.read_bytes() for path in place.credentials.directory.iterdir()}
    async with admin_redis(stores) as admin:
        rules = await admin.acl_getuser(login.username)
        saved = await admin.acl_list()
        await admin.execute_command("ACL", "SETUSER", login.username, "~foreign:*", "+flushall", ">another")
    second = await place.prepare()
    assert second.returncode == 0, second.stderr
    assert {path.name: path.read_bytes() for path in place.credentials.directory.iterdir()} == made
    async with admin_redis(stores) as admin:
        assert await admin.acl_getuser(login.username) == rules
        await admin.execute_command("ACL", "LOAD")
        assert sorted(await admin.acl_list()) == sorted(saved)
    connection = await asyncpg.connect(
        postgres_dsn(stores), user=place.credentials.login("postgres")().username,
        password=place.credentials.login("postgres")().password,
    )  # fmt: skip
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(f'DROP TABLE "{place.keys.schema}".memory_events')
    await connection.close()
    for secret in (*(value.decode().strip() for value in made.values() if len(value) > 40), "s3cret"):
        assert secret not in first.stderr + second.stderr + first.stdout


async def test_prepare_waits_for_stores_that_are_not_up_yet(place: Place, stores: LocalStores) -> None:
    await stores.valkey.stop()
    try:
        preparing = asyncio.create_task(place.prepare())
        connection = await admin_postgres(stores)
        exists = "SELECT to_regclass($1) IS NOT NULL"
        while not await connection.fetchval(exists, f'"{place.keys.schema}".memory_events'):
            await asyncio.sleep(0.02)
        await connection.close()
    finally:
        await stores.valkey.start()
    assert (await preparing).returncode == 0


async def test_prepare_gives_up_in_time_and_says_on_what(place: Place, stores: LocalStores) -> None:
    await stores.valkey.stop()
    try:
        done = await place.prepare(AGENTMEMORY_PREPARE_TIMEOUT="5")
    finally:
        await stores.valkey.start()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("agentmemory-sidecar: Redis did not come up in time")


@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_prepare_with_a_wrong_login_fails_at_once(place: Place, store: str) -> None:
    (place.directory / f"{store}.admin").write_text("wrong-s3cret")
    done = await place.prepare()
    assert done.returncode == 1
    assert "refuses the administrator's login" in done.stderr.splitlines()[-1]
    assert "s3cret" not in done.stderr


async def test_prepare_wants_an_administrator(place: Place) -> None:
    done = await place.run("prepare")
    assert done.returncode == 2
    assert "AGENTMEMORY_ADMIN_REDIS_USERNAME" in done.stderr.splitlines()[-1]


async def test_a_wrong_configuration_is_one_line_and_status_2(place: Place) -> None:
    (place.directory / "memory.yaml").write_text((MANIFEST % "a").replace("1h}", "soon}", 1))
    for command in ("serve", "drain", "prepare", ""):
        done = await place.run(command)
        [line] = done.stderr.splitlines()
        assert done.returncode == 2
        assert "spec.workingMemory.ttl: 'soon' is not a duration" in line


async def test_help_names_every_setting(place: Place) -> None:
    done = await place.run("--help")
    assert done.returncode == 0
    for word in ("serve", "drain", "prepare", "AGENTMEMORY_CREDENTIALS_DIR", "AGENTMEMORY_STOP_TIMEOUT"):
        assert word in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_stops_in_good_order_and_flushes(place: Place, stores: LocalStores, number: signal.Signals) -> None:
    await place.prepare()
    sidecar = place.sidecar()
    sidecar.start()
    await wait_until_ready(sidecar)
    secret = "what the agent said"
    for agent in range(10):
        await say(sidecar, f"agent-{agent}", secret)
    assert await place.stored(stores) == 0
    assert await sidecar.stop(number) == 0
    assert await place.stored(stores) == 10
    log = (place.directory / "one.log").read_text()
    assert {"time", "level", "logger", "message"} <= set(lines(log)[0])
    for word in (secret, place.credentials.login("redis")().password, place.credentials.login("postgres")().password):
        assert word not in log


async def test_only_this_machine_reaches_the_api(place: Place) -> None:
    await place.prepare()
    sidecar = place.sidecar(AGENTMEMORY_OPS_HOST="0.0.0.0")
    sidecar.start()
    try:
        await wait_until_ready(sidecar)
        listening = {
            connection.laddr[0]
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == sidecar.port
        }
        assert "127.0.0.1" in listening and listening <= {"127.0.0.1", "::1"}
    finally:
        await sidecar.kill()


async def test_a_port_that_is_taken_ends_it_with_a_line(place: Place) -> None:
    await place.prepare()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = await place.run("serve", AGENTMEMORY_PORT=str(taken.getsockname()[1]), AGENTMEMORY_OPS_PORT="0")
    assert done.returncode == 1
    assert "address already in use" in done.stderr.splitlines()[-1]


async def test_drain_moves_what_a_crash_left_and_ends(place: Place, stores: LocalStores) -> None:
    await place.prepare()
    sidecar = place.sidecar()
    sidecar.start()
    await wait_until_ready(sidecar)
    for agent in range(10):
        await say(sidecar, f"agent-{agent}", "pending")
    await sidecar.kill()
    assert await place.stored(stores) == 0
    done = await place.run("drain", AGENTMEMORY_LEASE="600")
    assert done.returncode == 0, done.stderr
    assert await place.stored(stores) == 10
    assert await place.owners(stores) == []
    assert messages(done.stderr)[-2:] == ["drained 10 turns", "the journal is empty"]
    again = await place.run("drain")
    assert again.returncode == 0
    assert messages(again.stderr) == ["drained 0 turns", "the journal is empty"]


async def test_drain_gives_up_in_time_while_another_owns_the_shards(place: Place, stores: LocalStores) -> None:
    await place.prepare()
    # It renews every twenty seconds, so that within this test it neither lapses nor gives half of its shards away.
    sidecar = place.sidecar(AGENTMEMORY_LEASE="60")
    sidecar.start()
    try:
        await wait_until_ready(sidecar)
        await say(sidecar, "a", "pending")
        done = await place.run("drain", AGENTMEMORY_DRAIN_TIMEOUT="0.5", AGENTMEMORY_LOG_FORMAT="text")
        assert done.returncode == 1
        assert "the journal is not empty after 0.5 s: another sidecar" in done.stderr.splitlines()[-1]
    finally:
        assert await sidecar.stop() == 0
    assert await place.stored(stores) == 1


async def test_drain_leaves_what_it_moves_in_the_embedding_queue(place: Place, stores: LocalStores) -> None:
    await place.prepare()
    manifest = place.directory / "memory.yaml"
    sidecar = place.sidecar()
    sidecar.start()
    await wait_until_ready(sidecar)
    await say(sidecar, "a", "embed me later")
    await sidecar.kill()
    manifest.write_text(manifest.read_text().replace("provider: None", "provider: Local"))
    assert (await place.run("drain")).returncode == 0
    connection = await admin_postgres(stores)
    queued = await connection.fetchval(f'SELECT count(*) FROM "{place.keys.schema}".embedding_queue')
    await connection.close()
    assert queued == 1


async def start_drain(place: Place) -> asyncio.subprocess.Process:
    """A drain that waits for Redis, which is down."""
    draining = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentmemory_sidecar", "drain", env=place.environment, stderr=asyncio.subprocess.PIPE
    )
    assert draining.stderr is not None
    while b"drain waits: redis" not in (line := await draining.stderr.readline()):
        assert line, "it ended"
    return draining


async def test_drain_waits_for_a_store_that_is_down(place: Place, stores: LocalStores) -> None:
    await place.prepare()
    await stores.valkey.stop()
    try:
        draining = await start_drain(place)
    finally:
        await stores.valkey.start()
    await draining.communicate()
    assert draining.returncode == 0


async def test_drain_stops_when_told_to(place: Place, stores: LocalStores) -> None:
    await place.prepare()
    await stores.valkey.stop()
    try:
        draining = await start_drain(place)
        draining.send_signal(signal.SIGTERM)
        said = (await draining.communicate())[1].decode()
    finally:
        await stores.valkey.start()
    assert draining.returncode == 1
    assert said.splitlines()[-1].startswith("agentmemory-sidecar: stopped before the journal was empty")
    assert "Traceback" not in said
