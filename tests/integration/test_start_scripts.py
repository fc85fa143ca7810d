"""The start script of Postgres on the embedded one. That is built without TLS: a wrapper turns it off, and no more."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from agentmemory.local.places import unprivileged_account
from agentmemory.local.postgres import find_binaries
from agentmemory_operator.resources.pods import literal
from support.start_scripts import Container

SCRIPT = "postgres-start.sh"
PASSWORD = "pa'ss\\wo\"rd $(HOME) $$ é"
WITHOUT_TLS = """#!/bin/sh
for argument do
    shift
    [ "$argument" != ssl=on ] || argument=ssl=off
    set -- "$@" "$argument"
done
exec {programs}/postgres "$@"
"""
KILLED_HALF_WAY = """#!/bin/sh
{programs}/initdb "$@" >/dev/null
for argument do
    case $argument in --pgdata=*) rm -r "${{argument#--pgdata=}}"/global ;; esac
done
kill -KILL $PPID
"""


class Cluster(Container):
    """A container with the embedded Postgres."""

    def __init__(self, home: Path) -> None:
        account = unprivileged_account()
        super().__init__(home, account)
        self.programs = find_binaries(account)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port: int = listener.getsockname()[1]
        self.environment |= {"AGENTMEMORY_PORT": str(self.port), "HOME": "/nowhere"}
        self.write("admin/password", PASSWORD + "\n")
        self.restore_programs()

    @property
    def data(self) -> Path:
        return self.home / "data" / "pgdata"

    def restore_programs(self) -> None:
        """The programs as they are."""
        self.program("postgres", WITHOUT_TLS.format(programs=self.programs))
        for name in ("initdb", "pg_isready"):
            self.program(name, f'#!/bin/sh\nexec {self.programs}/{name} "$@"\n')

    async def connect(self, password: str = PASSWORD, host: str | None = None) -> asyncpg.Connection[asyncpg.Record]:
        """A superuser's connection, over the socket unless there is a host."""
        return await asyncpg.connect(
            host=host or str(self.home / "run"),
            port=self.port,
            user="postgres",
            database="postgres",
            password=password,
            ssl=False,
        )

    async def up(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start, and wait until it takes connections."""
        process = self.start(SCRIPT, arguments)
        await self.until(process, self._answers)
        return process

    async def _answers(self) -> bool:
        try:
            await (await self.connect()).close()
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        except asyncpg.InvalidPasswordError:
            return True
        return True

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        """What the preStop hook does."""
        process.send_signal(signal.SIGINT)
        assert await self.wait(process) == 0

    async def ask(self, statement: str, password: str = PASSWORD) -> Any:
        connection = await self.connect(password)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    home = Path(tempfile.mkdtemp(prefix="am-", dir="/tmp"))
    home.chmod(0o755)
    cluster = Cluster(home)
    yield cluster
    cluster.end()
    shutil.rmtree(home)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    main = psutil.Process(process.pid)
    return [main, *main.children(recursive=True)]


async def test_the_first_start_makes_a_cluster_for_scram_and_tls_alone(cluster: Cluster) -> None:
    process = await cluster.up("-c", literal("work_mem=7MB"), "-c", literal("log_line_prefix=%m $(HOME) $$ "))
    assert await cluster.ask("SHOW work_mem") == "7MB"
    assert await cluster.ask("SHOW log_line_prefix") == "%m $(HOME) $$ "
    assert await cluster.ask("SHOW data_checksums") == "on"
    assert await cluster.ask("SHOW listen_addresses") == "*"
    row = "SELECT datcollate || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'postgres'"
    assert await cluster.ask(row) == "C UTF8"
    assert await cluster.ask("SELECT lower('É')") == "é"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await cluster.connect("another")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match=r"no pg_hba\.conf entry"):
        await cluster.connect(host="127.0.0.1")
    assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
    await cluster.stop(process)
    assert cluster.last_words == ""


async def test_the_password_is_nowhere_to_be_seen(cluster: Cluster) -> None:
    process = await cluster.up()
    looked_at = 0
    for one in family(process):
        with suppress(psutil.NoSuchProcess):  # a worker that had little to do
            seen = " ".join([*one.cmdline(), *one.environ().values()])
            assert "wo" + '"rd' not in seen
            looked_at += 1
    assert looked_at > 1
    assert "wo" + '"rd' not in cluster.log
    await cluster.stop(process)


async def test_the_second_start_keeps_the_data(cluster: Cluster) -> None:
    process = await cluster.up()
    await cluster.ask("CREATE TABLE facts AS SELECT 'kept' AS fact")
    await cluster.stop(process)
    process = await cluster.up()
    assert await cluster.ask("SELECT fact FROM facts") == "kept"
    process.kill()
    await cluster.wait(process)
    process = await cluster.up()
    assert await cluster.ask("SELECT fact FROM facts") == "kept"
    await cluster.stop(process)
    assert cluster.log.count("Success. You can now start") == 1


async def test_a_stop_does_not_wait_for_clients_and_leaves_the_data_clean(cluster: Cluster) -> None:
    process = await cluster.up()
    connection = await cluster.connect()
    sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
    while await cluster.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 0:
        await asyncio.sleep(0.01)
    await cluster.stop(process)
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await sleeping
    control = subprocess.check_output([cluster.programs / "pg_controldata", cluster.data], text=True)
    assert "shut down\n" in control


async def test_killed_in_the_middle_of_initdb_it_begins_anew(cluster: Cluster) -> None:
    cluster.program("initdb", KILLED_HALF_WAY.format(programs=cluster.programs))
    assert cluster.run(SCRIPT) == -signal.SIGKILL
    half = cluster.home / "data" / "pgdata.new"
    assert (half / "PG_VERSION").exists() and not cluster.data.exists()
    cluster.restore_programs()
    process = await cluster.up()
    assert await cluster.ask("SELECT 1") == 1
    assert not half.exists()
    await cluster.stop(process)


async def test_data_of_another_major_version_are_refused_and_left_alone(cluster: Cluster) -> None:
    await cluster.stop(await cluster.up())
    version = cluster.data / "PG_VERSION"
    made_by = version.read_text().strip()
    version.write_text("14\n")
    assert cluster.run(SCRIPT) == 1
    assert cluster.last_words.startswith("major-version-mismatch: ")
    assert f"made by PostgreSQL 14 and this image is PostgreSQL {made_by}." in cluster.last_words
    assert cluster.last_words.strip() in cluster.log
    version.write_text(f"{made_by}\n")
    process = await cluster.up()
    assert await cluster.ask("SELECT 1") == 1
    await cluster.stop(process)


async def test_a_folder_that_is_no_cluster_is_left_alone(cluster: Cluster) -> None:
    cluster.folder("data/pgdata")
    cluster.write("data/pgdata/precious", "data")
    assert cluster.run(SCRIPT) == 1
    assert cluster.last_words.startswith("data-damaged: ")
    assert (cluster.data / "precious").read_text() == "data"


async def test_another_password_in_the_secret_holds_from_the_next_start(cluster: Cluster) -> None:
    await cluster.stop(await cluster.up())
    cluster.write("admin/password", "the 'next' \\one\n")
    process = await cluster.up("-c", "shared_preload_libraries=pg_stat_statements")
    assert await cluster.ask("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'", "the 'next' \\one")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await cluster.connect(PASSWORD)
    assert "\\one" not in cluster.log
    await cluster.stop(process)
    process = await cluster.up()
    assert cluster.log.count("the administrator's password is another one now") == 1
    await cluster.stop(process)


async def test_a_password_that_cannot_be_set_keeps_it_from_starting(cluster: Cluster) -> None:
    process = await cluster.up()
    await cluster.ask("CREATE ROLE other SUPERUSER LOGIN")
    await cluster.ask("UPDATE pg_authid SET rolname = 'renamed' WHERE rolname = 'postgres'")
    await cluster.stop(process)
    cluster.write("admin/password", "unspoken")
    assert cluster.run(SCRIPT) == 1
    assert cluster.last_words.startswith("password-not-set: ")
    assert "unspoken" not in cluster.log


async def test_data_that_was_opened_to_a_group_is_closed(cluster: Cluster) -> None:
    await cluster.stop(await cluster.up())
    cluster.data.chmod(0o770)
    process = await cluster.up()
    assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
    await cluster.stop(process)


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock there is no lock")
async def test_a_second_server_waits_until_the_first_has_left(cluster: Cluster) -> None:
    first = await cluster.up()
    second = cluster.start(SCRIPT)
    await cluster.until(second, lambda: "waiting for another server" in cluster.log)
    assert "ready to accept connections" in cluster.log
    second.send_signal(signal.SIGTERM)
    assert await cluster.wait(second) == 143
    second = cluster.start(SCRIPT)
    await cluster.until(second, lambda: cluster.log.count("waiting for another server") == 2)
    assert await cluster.ask("SELECT 1") == 1
    await cluster.stop(first)
    await cluster.until(second, lambda: cluster.log.count("ready to accept connections") == 2)
    assert await cluster.ask("SELECT 1") == 1
    await cluster.stop(second)


async def test_the_programs_are_found_where_debian_puts_them(cluster: Cluster) -> None:
    for name in ("postgres", "initdb"):
        (cluster.home / "bin" / name).unlink()
    for version in ("15", "18"):
        folder = cluster.home / "versions" / version / "bin"
        folder.mkdir(parents=True)
        for name in ("postgres", "initdb"):
            text = WITHOUT_TLS.format(programs=cluster.programs).replace("/postgres", f"/{name}")
            broken = "#!/bin/sh\nexit 3\n"
            cluster.write(f"versions/{version}/bin/{name}", broken if version == "15" else text, mode=0o755)
    process = await cluster.up()
    assert await cluster.ask("SELECT 1") == 1
    await cluster.stop(process)


async def test_what_is_missing_is_named(cluster: Cluster) -> None:
    (cluster.home / "bin" / "initdb").unlink()
    assert cluster.run(SCRIPT) == 1
    assert cluster.last_words.startswith("program-missing: this image has no postgres and initdb")
    cluster.restore_programs()
    cluster.write("admin/password", "")
    assert cluster.run(SCRIPT) == 1
    assert cluster.last_words.startswith("password-missing: ")
    assert not cluster.data.exists()


async def test_the_probe_tells_who_serves(cluster: Cluster) -> None:
    process = await cluster.up()
    assert cluster.run("postgres-probe.sh") == 0
    assert cluster.run("postgres-probe.sh", ["alive"]) == 0
    await cluster.stop(process)
    assert cluster.run("postgres-probe.sh") == 1
    assert cluster.run("postgres-probe.sh", ["alive"]) == 1


@pytest.mark.parametrize(("answer", "serves", "lives"), [(0, True, True), (1, False, True), (2, False, False)])
def test_the_probe_tells_refusing_from_silent(cluster: Cluster, answer: int, serves: bool, lives: bool) -> None:
    cluster.program("pg_isready", f"#!/bin/sh\nexit {answer}\n")
    assert (cluster.run("postgres-probe.sh") == 0) is serves
    assert (cluster.run("postgres-probe.sh", ["alive"]) == 0) is lives
