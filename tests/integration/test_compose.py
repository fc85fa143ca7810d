"""What compose.yaml runs, run outside of containers: every entrypoint, command and health check, on embedded stores.

Hosts, ports and paths are exchanged for those of the test, and nothing else. There is no PgBouncer here: a program that
passes everything on to Postgres stands in for it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentmemory.local.postgres import Postgres, PostgresSettings, find_binaries
from agentmemory.local.stores import LocalStores
from agentmemory.local.valkey import find_server
from agentmemory_engine.redis import Credentials
from support.fleet import free_port

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
PORTS = {"redis:6379": "redis", "postgres:5432": "postgres", "pgbouncer:6432": "pgbouncer"}
REDIS_CLI = """#!{python}
import os, sys
import redis
assert sys.argv[1:] == ["--user", "admin", "--no-auth-warning", "ping"]
client = redis.Redis(port={port}, username="admin", password=os.environ["REDISCLI_AUTH"])
sys.stdout.write("PONG\\n" if client.ping() else "")
"""
POOLER = """#!{python}
import asyncio, configparser, sys

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def main():
    settings = configparser.ConfigParser()
    settings.read(sys.argv[1])
    target = dict(part.split("=") for part in settings["databases"]["agentmemory"].split())

    async def serve(reader, writer):
        there = await asyncio.open_connection(target["host"], int(target["port"]))
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    open(settings["pgbouncer"]["auth_file"]).close()
    server = await asyncio.start_server(serve, "127.0.0.1", settings["pgbouncer"].getint("listen_port"))
    await server.serve_forever()

asyncio.run(main())
"""


class Machine:
    """A directory in the place of the containers' file systems, and ports of this machine in the place of theirs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports = {name: free_port() for name in ("redis", "postgres", "pgbouncer", "api", "ops")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for folder in ("bin", "data", "run", "state"):
            (home / folder).mkdir()
        binaries = find_binaries(None)
        for name, target in (("redis-server", find_server()), ("pg_isready", binaries / "pg_isready")):
            (home / "bin" / name).symlink_to(target)
        self.program("redis-cli", REDIS_CLI.format(python=sys.executable, port=self.ports["redis"]))
        self.program("pgbouncer", POOLER.format(python=sys.executable))
        (home / "pgbouncer.ini").write_text(self.outside((ROOT / "compose" / "pgbouncer.ini").read_text()))

    def program(self, name: str, text: str) -> None:
        path = self.home / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def outside(self, text: str) -> str:
        """What stands in compose.yaml, with places of this machine."""
        for container, name in PORTS.items():
            text = text.replace(container, f"127.0.0.1:{self.ports[name]}")
        replaced = {
            "/run/secrets/": f"{self.home}/.secrets/",
            "/var/lib/agentmemory": f"{self.home}/state",
            "/etc/agentmemory/memory.yaml": str(ROOT / "compose" / "memory.yaml"),
            "/etc/agentmemory/redis-start.sh": str(ROOT / "compose" / "redis-start.sh"),
            "/etc/agentmemory/pgbouncer-start.sh": str(ROOT / "compose" / "pgbouncer-start.sh"),
            "/agent/agent.py": str(ROOT / "examples" / "agent.py"),
            "/tmp/userlist.txt": f"{self.home}/run/userlist.txt",
            "host=postgres port=5432": f"host=127.0.0.1 port={self.ports['postgres']}",
            "listen_port = 6432": f"listen_port = {self.ports['pgbouncer']}",
            ":7071": f":{self.ports['ops']}",
            ":7070": f":{self.ports['api']}",
            "7070)": f"{self.ports['api']})",
            "$$": "$",
        }
        for container, here in replaced.items():
            text = text.replace(container, here)
        return text

    def environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """What the service is given, and where this test has what is elsewhere in an image."""
        path = os.pathsep.join((str(self.home / "bin"), str(Path(sys.executable).parent), "/usr/bin", "/bin"))
        given = {name: self.outside(value) for name, value in service.get("environment", {}).items()}
        return given | {
            "PATH": path,
            "HOME": str(self.home),
            "AGENTMEMORY_DATA": str(self.home / "data"),
            "AGENTMEMORY_PASSWORD_FILE": str(self.home / ".secrets" / "redis-password"),
            "AGENTMEMORY_RUN": str(self.home / "run"),
            "AGENTMEMORY_SETTINGS": str(self.home / "pgbouncer.ini"),
            "AGENTMEMORY_PORT": str(self.ports["redis" if "entrypoint" in service else "api"]),
            "AGENTMEMORY_OPS_PORT": str(self.ports["ops"]),
            "AGENTMEMORY_OPS_HOST": "127.0.0.1",
            "AGENTMEMORY_CREDENTIALS_DIR": str(self.home / "state" / "credentials"),
        }

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """A service: its entrypoint, or the image's, and its command."""
        service = COMPOSE["services"][name]
        image = ["python3", "-m", "agentmemory_sidecar"] if "build" in service else []
        command = [*service.get("entrypoint", image), *service["command"]]
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [self.outside(part) for part in command], env=self.environment(service), cwd=self.home, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    async def is_well(self, name: str) -> bool:
        """What its health check says."""
        service = COMPOSE["services"][name]
        kind, *test = service["healthcheck"]["test"]
        command = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        command = [self.outside(part) for part in command]
        command = [str(self.ports[name]) if part in ("5432", "6432") else part for part in command]
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environment(service), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return await process.wait() == 0

    async def until_well(self, name: str) -> None:
        while not await self.is_well(name):
            process = self.processes.get(name)
            assert process is None or process.poll() is None, self.log(name)

    async def until_said(self, name: str, pattern: str) -> None:
        while re.search(pattern, self.log(name)) is None:
            assert self.processes[name].poll() is None, self.log(name)
            await asyncio.sleep(0.01)

    def stop(self, name: str) -> int:
        """As Compose does: SIGTERM, and its status."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(timeout=60)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        for name in reversed(list(machine.processes)):
            machine.processes[name].kill()
            machine.processes[name].wait()


@pytest.mark.timeout(120)
async def test_the_services_come_up_in_order_and_an_agent_remembers(machine: Machine) -> None:
    home = machine.home
    subprocess.run(["sh", str(ROOT / "compose" / "secrets.sh")], cwd=home, check=True, capture_output=True)
    for name in ("redis", "pgbouncer", "sidecar", "agent"):
        assert not await machine.is_well(name), name
    shutil.copy(home / ".secrets" / "postgres-password", home / "postgres.password")
    postgres = Postgres(home, PostgresSettings(port=machine.ports["postgres"]))
    await postgres.start()
    try:
        await machine.until_well("postgres")
        machine.start("redis")
        await machine.until_well("redis")
        for _ in range(2):  # the second time, there is nothing to do
            assert await asyncio.to_thread(machine.start("migrate").wait, 60) == 0, machine.log("migrate")
            machine.processes.pop("migrate")
        for name in ("pgbouncer", "sidecar"):
            machine.start(name)
            await machine.until_well(name)
        await _remembers(machine)
        await _redis_keeps_its_logins(machine)
        for name in ("sidecar", "redis"):
            assert machine.stop(name) == 0, machine.log(name)
    finally:
        await postgres.stop()
        await LocalStores.erase(home)


async def _remembers(machine: Machine) -> None:
    machine.start("agent")
    assert await machine.is_well("agent")
    await machine.until_said("agent", r"woke up at step 0, with 0 recent messages\nstep 1 acknowledged at ")
    assert machine.stop("agent") == 0
    machine.start("agent")
    await machine.until_said("agent", r"woke up at step 1, with 1 recent messages\nstep 2 acknowledged at ")
    machine.stop("agent")


async def _redis_keeps_its_logins(machine: Machine) -> None:
    """Those that `migrate` made are there after a restart, and nobody else gets in."""
    import redis.asyncio
    from redis.exceptions import AuthenticationError

    assert machine.stop("redis") == 0
    machine.start("redis")
    await machine.until_well("redis")
    directory = machine.home / "state" / "credentials"
    login = Credentials(*((directory / f"redis-{part}").read_text().strip() for part in ("username", "password")))
    async with redis.asyncio.Redis(
        port=machine.ports["redis"], username=login.username, password=login.password
    ) as client:
        assert await client.ping()
    async with redis.asyncio.Redis(port=machine.ports["redis"]) as anyone:
        with pytest.raises(AuthenticationError):
            await anyone.ping()
    users = (machine.home / "run" / "userlist.txt").read_text()
    assert users == '"{}" "{}"\n'.format(
        *((directory / f"postgres-{part}").read_text().strip() for part in ("username", "password"))
    )
    assert (machine.home / "run" / "userlist.txt").stat().st_mode & 0o077 == 0
    await machine.until_well("sidecar")


@pytest.mark.parametrize(("service", "why"), [("redis", "make secrets"), ("pgbouncer", "the service migrate makes it")])
async def test_what_is_missing_is_said(machine: Machine, service: str, why: str) -> None:
    assert machine.start(service).wait(timeout=60) == 1
    assert why in machine.log(service)
