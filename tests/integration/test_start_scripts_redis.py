"""The start scripts of Redis and PgBouncer.

Redis is the embedded Valkey, which is built without TLS, behind a wrapper that takes the options for it away; where a
`redis-server` is installed, it is that one too, with TLS. PgBouncer is a program that notes what signals it gets.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, ResponseError

from agentmemory.local.valkey import find_server
from agentmemory_engine.preflight import examine_redis
from agentmemory_operator.certificates import issue, new_authority
from support.start_scripts import Container

SCRIPT = "redis-start.sh"
PASSWORD = "pa'ss\\wo\"rd $(HOME) $$ é"
WITHOUT_TLS = """#!{python}
import os, sys
arguments = sys.argv[1:]
options = dict(zip(arguments[::2], arguments[1::2], strict=True))
options["--port"] = options["--tls-port"]
kept = [part for name, value in options.items() if not name.startswith("--tls") for part in (name, value)]
os.execv("{server}", ["redis-server", *kept])
"""
FAKE_POOLER = """#!{python}
import signal, sys
from pathlib import Path
home = Path("{home}")
def note(what):
    with (home / "run" / "seen").open("a") as stream:
        stream.write(what + "\\n")
def reread(number, frame):
    files = home / "tls" / "tls.crt", home / "run" / "userlist.txt", Path(sys.argv[1])
    note("".join(file.read_text().replace("\\n", " ") for file in files))
def end(number, frame):
    note("SIGINT")
    sys.exit(7)
signal.signal(signal.SIGHUP, reread)
signal.signal(signal.SIGINT, end)
note("started " + sys.argv[1])
while True:
    signal.pause()
"""


def write_certificates(container: Container) -> None:
    """The files of a Secret of type kubernetes.io/tls."""
    now = datetime.now(UTC)
    authority = new_authority("team.research", now)
    leaf = issue(authority, ["localhost"], now)
    for name, text in (("tls.crt", leaf.certificate), ("tls.key", leaf.key), ("ca.crt", authority.certificate)):
        container.write(f"tls/{name}", text)


class RedisContainer(Container):
    """A container with Redis or Valkey."""

    def __init__(self, home: Path, server: Path | None) -> None:
        super().__init__(home)
        self.tls = server is not None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port: int = listener.getsockname()[1]
        self.environment |= {"AGENTMEMORY_PORT": str(self.port), "HOME": "/nowhere"}
        self.write("admin/password", PASSWORD + "\n")
        write_certificates(self)
        if server is not None:
            (self.home / "bin" / "redis-server").symlink_to(server)
        else:
            self.program("redis-server", WITHOUT_TLS.format(python=sys.executable, server=find_server()))

    def client(self, username: str | None = "operator", password: str | None = PASSWORD) -> Any:
        """A connection of its own for each use."""
        options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self.home / "tls" / "ca.crt")} if self.tls else {}
        return redis.asyncio.Redis(
            host="localhost", port=self.port, username=username, password=password, decode_responses=True,
            retry=Retry(NoBackoff(), 0), **options,
        )  # fmt: skip

    async def up(self, *arguments: str, password: str = PASSWORD) -> subprocess.Popen[bytes]:
        """Start, and wait until it serves."""

        async def answers() -> bool:
            try:
                async with self.client(password=password) as client:
                    return bool(await client.ping())
            except AuthenticationError:
                raise
            except ConnectionError:
                return False

        process = self.start(SCRIPT, arguments)
        await self.until(process, answers)
        return process

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        assert await self.wait(process) == 0


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="am-", dir="/tmp"))
    yield home
    shutil.rmtree(home)


def installed_server() -> Path | None:
    """A Redis with TLS on this machine that is new enough."""
    server, cli = shutil.which("redis-server"), shutil.which("redis-cli")
    if server is None or cli is None:
        return None
    version = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
    usage = subprocess.run([cli, "--help"], capture_output=True, text=True, check=False)
    major = re.search(r"v=(\d+)\.", version)
    return Path(server) if major and int(major[1]) >= 7 and "--tls" in usage.stdout + usage.stderr else None


@pytest.fixture(params=["embedded", "installed"])
def container(request: pytest.FixtureRequest, home: Path) -> Iterator[RedisContainer]:
    server = installed_server() if request.param == "installed" else None
    if request.param == "installed" and server is None:
        pytest.skip("no redis-server with TLS is installed")
    found = RedisContainer(home, server)
    yield found
    found.end()


async def test_the_first_start_lets_the_operator_in_and_nobody_else(container: RedisContainer) -> None:
    process = await container.up("--appendfsync", "always", "--maxmemory", "12345678")
    async with container.client() as client:
        assert await client.acl_whoami() == "operator"
        settings = await client.config_get("*")
        assert sorted(line.split()[1] for line in await client.acl_list()) == ["default", "operator"]
    assert settings["appendonly"] == "yes" and settings["appendfsync"] == "always" and settings["save"] == ""
    assert settings["maxmemory"] == "12345678" and settings["maxmemory-policy"] == "noeviction"
    assert settings["port" if container.tls else "tls-port"] == "0"
    for username, password in (("operator", "another"), (None, None), ("default", "")):
        async with container.client(username, password) as client:
            with pytest.raises((AuthenticationError, ResponseError)):
                await client.ping()
    await container.stop(process)
    assert container.last_words == ""


async def test_the_password_is_nowhere_to_be_seen(container: RedisContainer) -> None:
    process = await container.up()
    server = psutil.Process(process.pid)
    assert "wo" + '"rd' not in " ".join([*server.cmdline(), *server.environ().values(), container.log])
    users = container.home / "data" / "users.acl"
    assert f"#{sha256(PASSWORD.encode()).hexdigest()} " in users.read_text()
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    await container.stop(process)


async def test_data_and_users_are_kept(container: RedisContainer) -> None:
    process = await container.up()
    async with container.client() as client:
        await client.execute_command("ACL", "SETUSER", "team_1", "reset", "on", ">theirs", "~am:*", "-@all", "+get")
        await client.execute_command("ACL", "SAVE")
        await client.set("am:fact", "kept")
    await container.stop(process)
    process = await container.up()
    async with container.client("team_1", "theirs") as client:
        assert await client.get("am:fact") == "kept"
    process.kill()
    await container.wait(process)
    process = await container.up()
    async with container.client("team_1", "theirs") as client:
        assert await client.get("am:fact") == "kept"
    await container.stop(process)


async def test_another_password_in_the_secret_holds_from_the_next_start(container: RedisContainer) -> None:
    process = await container.up()
    async with container.client() as client:
        await client.execute_command("ACL", "SETUSER", "operators", "on", ">theirs", "+ping")
        await client.execute_command("ACL", "SAVE")
    await container.stop(process)
    container.write("admin/password", "next")
    process = await container.up(password="next")
    async with container.client() as client:
        with pytest.raises((AuthenticationError, ResponseError)):
            await client.ping()
    async with container.client("operators", "theirs") as client:
        assert await client.ping()
    await container.stop(process)


async def test_nobody_logs_in_as_default_and_what_scripts_wrote_outlives_a_crash(container: RedisContainer) -> None:
    """A server loads its append-only file as user default, and may leave out the transactions that it may not do."""
    process = await container.up()
    async with container.client() as client:
        assert (await examine_redis(client)).default_may_all
        await client.eval("redis.call('SET', 'a', '1'); redis.call('SET', 'b', '2')", 0)
    process.kill()
    await container.wait(process)
    process = await container.up()
    async with container.client() as client:
        assert await client.mget("a", "b") == ["1", "2"]
    await container.stop(process)


async def test_whatever_the_file_says_the_operator_may_do_all_and_nobody_is_default(container: RedisContainer) -> None:
    container.write("data/users.acl", "user default on nopass ~* &* +@all\nuser operator off\nnonsense\n\0\0\0\0")
    container.write("data/users.acl.new", "half")
    process = await container.up()
    async with container.client() as client:
        assert sorted(line.split()[1] for line in await client.acl_list()) == ["default", "operator"]
    async with container.client(None, None) as client:
        with pytest.raises((AuthenticationError, ResponseError)):
            await client.ping()
    await container.stop(process)


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock there is no lock")
async def test_a_second_server_waits_until_the_first_has_left(container: RedisContainer) -> None:
    first = await container.up()
    second = container.start(SCRIPT)
    await container.until(second, lambda: "waiting for another server" in container.log)
    second.send_signal(signal.SIGTERM)
    assert await container.wait(second) == 143
    second = container.start(SCRIPT)
    await container.until(second, lambda: container.log.count("waiting for another server") == 2)
    async with container.client() as client:
        await client.set("fact", "of the first")
    await container.stop(first)
    await container.until(second, lambda: container.log.count("Ready to accept connections") == 2)
    async with container.client() as client:
        assert await client.get("fact") == "of the first"
    await container.stop(second)


def test_valkey_serves_as_well_and_without_either_it_says_so(home: Path) -> None:
    container = RedisContainer(home, None)
    (home / "bin" / "redis-server").rename(home / "bin" / "valkey-server")
    container.program("valkey-server", '#!/bin/sh\necho "valkey $1 $2"\n')
    assert container.run(SCRIPT, ["--maxmemory", "1"]) == 0
    assert "valkey --maxmemory 1\n" in container.log
    (home / "bin" / "valkey-server").unlink()
    assert container.run(SCRIPT) == 1
    assert container.last_words.startswith("program-missing: this image has neither redis-server nor valkey-server")


def test_without_a_password_it_does_not_start(home: Path) -> None:
    container = RedisContainer(home, None)
    container.write("data/users.acl", "user team_1 on\n")
    container.write("admin/password", "")
    assert container.run(SCRIPT) == 1
    assert container.last_words.startswith("password-missing: ")
    assert (home / "data" / "users.acl").read_text() == "user team_1 on\n"


@pytest.mark.parametrize(
    ("answer", "serves", "lives"),
    [
        ("PONG", True, True),
        ("LOADING Redis is loading the dataset in memory", False, True),
        ("AUTH failed: WRONGPASS invalid username-password pair\nNOAUTH Authentication required.", True, True),
        ("MISCONF Errors writing to the AOF file: No space left on device", True, True),
        ("BUSY Redis is busy running a script.", True, True),
        ("Could not connect to Redis at 127.0.0.1:6379: Connection refused", False, False),
        ("", False, False),
    ],
)
def test_the_probe_tells_who_serves(home: Path, answer: str, serves: bool, lives: bool) -> None:
    container = RedisContainer(home, None)
    container.program("valkey-cli", f'#!/bin/sh\necho "$REDISCLI_AUTH|$*" >"{home}/asked"\necho "{answer}"\n')
    assert (container.run("redis-probe.sh") == 0) is serves
    assert (container.run("redis-probe.sh", ["alive"]) == 0) is lives
    password, _, arguments = (home / "asked").read_text().partition("|")
    assert password == PASSWORD
    assert PASSWORD not in arguments and f"-p {container.port} --user operator" in arguments


def test_the_probe_without_a_program_says_so(home: Path) -> None:
    container = RedisContainer(home, None)
    assert container.run("redis-probe.sh") == 1
    assert "neither redis-cli nor valkey-cli" in container.log


@pytest.mark.parametrize("container", ["installed"], indirect=True)
async def test_the_probe_asks_a_real_server(container: RedisContainer) -> None:
    (container.home / "bin" / "redis-cli").symlink_to(shutil.which("redis-cli") or "")
    assert container.run("redis-probe.sh") == 1
    process = await container.up()
    assert container.run("redis-probe.sh") == 0
    container.write("admin/password", "another")
    assert container.run("redis-probe.sh") == 0
    await container.stop(process)


@pytest.fixture
def pooler(home: Path) -> Iterator[Container]:
    container = Container(home)
    container.environment |= {
        "AGENTMEMORY_SETTINGS": str(home / "settings.ini"),
        "AGENTMEMORY_LOGINS": str(home / "run"),
        "AGENTMEMORY_INTERVAL": "0.01",
        "AGENTMEMORY_FAREWELL": "0",
        "AGENTMEMORY_SSL_MODE": "require",
        "AGENTMEMORY_SSL_MODE_WITH_CA": "verify-full",
    }
    container.write("settings.ini", "[pgbouncer]\nlisten_port = 6432\n")
    container.program("pgbouncer", FAKE_POOLER.format(python=sys.executable, home=home))
    write_certificates(container)
    container.write("run/userlist.txt", '"one" "password"')
    yield container
    container.end()


def seen(container: Container) -> list[str]:
    path = container.home / "run" / "seen"
    return path.read_text().splitlines() if path.exists() else []


async def pooler_up(container: Container) -> subprocess.Popen[bytes]:
    process = container.start("pooler-start.sh")
    await container.until(process, lambda: bool(seen(container)))
    return process


def in_force(container: Container) -> str:
    """Certificate, logins and settings as the pooler should have read them last."""
    run = container.home / "run"
    files = (container.home / "tls" / "tls.crt", run / "userlist.txt", run / "pgbouncer.ini")
    return "".join(file.read_text().replace("\n", " ") for file in files)


async def test_the_pooler_is_told_of_new_certificates_settings_and_logins(pooler: Container) -> None:
    process = await pooler_up(pooler)
    settings = pooler.home / "run" / "pgbouncer.ini"
    assert seen(pooler) == [f"started {settings}"]
    assert settings.read_text() == "[pgbouncer]\nlisten_port = 6432\nserver_tls_sslmode = require\n"
    write_certificates(pooler)
    await pooler.until(process, lambda: seen(pooler)[-1] == in_force(pooler))
    authority = pooler.write("postgres/ca.crt", "an authority")
    verified = f"server_tls_sslmode = verify-full server_tls_ca_file = {authority} "
    await pooler.until(process, lambda: seen(pooler)[-1] == in_force(pooler) and seen(pooler)[-1].endswith(verified))
    pooler.write("settings.ini", "[pgbouncer]\nlisten_port = 6433\n")
    await pooler.until(process, lambda: seen(pooler)[-1] == in_force(pooler) and "6433" in seen(pooler)[-1])
    told = len(seen(pooler))
    authority.write_text("another authority")
    await pooler.until(process, lambda: len(seen(pooler)) > told)
    pooler.write("run/userlist.txt", '"one" "another"')
    await pooler.until(process, lambda: seen(pooler)[-1] == in_force(pooler) and "another" in seen(pooler)[-1])


async def test_the_pooler_ends_in_good_order_and_with_its_own_status(pooler: Container) -> None:
    process = await pooler_up(pooler)
    process.send_signal(signal.SIGTERM)
    assert await pooler.wait(process) == 7
    assert seen(pooler)[-1] == "SIGINT"


async def test_a_pooler_that_ends_by_itself_ends_its_container(pooler: Container) -> None:
    pooler.program("pgbouncer", "#!/bin/sh\nexit 3\n")
    assert await pooler.wait(pooler.start("pooler-start.sh")) == 3


async def test_postgres_without_an_authority_of_its_own_is_verified_by_the_systems(pooler: Container) -> None:
    pooler.environment["AGENTMEMORY_SSL_MODE"] = "verify-full"
    await pooler_up(pooler)
    settings = (pooler.home / "run" / "pgbouncer.ini").read_text()
    assert "server_tls_sslmode = verify-full\nserver_tls_ca_file = /etc/ssl/certs/" in settings


def test_without_pgbouncer_it_says_so(pooler: Container) -> None:
    (pooler.home / "bin" / "pgbouncer").unlink()
    assert pooler.run("pooler-start.sh") == 1
    assert pooler.last_words.startswith("program-missing: ")
