"""Servers of other versions than the embedded ones, as `make servers` fetches them."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import ClassVar

import asyncpg

from agentmemory.local.places import (
    is_reachable,
    postgres_home,
    private_directory,
    socket_directory,
    unprivileged_account,
)
from agentmemory.local.postgres import DATABASE, SUPERUSER, Postgres, PostgresSettings
from agentmemory.local.server import Command, Server, run_to_end
from agentmemory_engine.redis import Credentials

_HOME = Path(__file__).parents[2] / ".servers"


def find_redis(major: int) -> str | None:
    """The redis-server of this version; None where this machine has none."""
    return _find("redis-server", [*_HOME.glob("*/usr/bin/redis-server")], major, "v=")


def find_postgres(major: int) -> Path | None:
    """The folder with `initdb` and `postgres` of this version and pgvector; None where this machine has none."""
    wheels = _HOME.glob("wheels/*/pginstall*/bin/postgres")
    program = _find(None, [*_HOME.glob("*/usr/lib/postgresql/*/bin/postgres"), *wheels], major, r"PostgreSQL\) ")
    return None if program is None else Path(program).parent


def find_pgbouncer(*, keeps_statements: bool) -> str | None:
    """A PgBouncer that can keep track of prepared statements, 1.21 or newer, or one that cannot."""
    for program in sorted(_HOME.glob("*/usr/sbin/pgbouncer")):
        version = re.search(r"PgBouncer (\d+)\.(\d+)", _said(str(program)))
        if version and ((int(version[1]), int(version[2])) >= (1, 21)) == keeps_statements and _usable(program):
            return str(program)
    return None


def _find(name: str | None, found: Iterable[Path], major: int, before: str) -> str | None:
    installed = shutil.which(name) if name else None
    for program in [*map(str, sorted(found)), *([installed] if installed else [])]:
        version = re.search(rf"{before}(\d+)", _said(program))
        if version and int(version[1]) == major and _usable(Path(program)):
            return program
    return None


def _said(program: str) -> str:
    """What the program says of its version."""
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout


def _usable(program: Path) -> bool:
    """Whether the account can run it as which servers run that refuse root."""
    return unprivileged_account() is None or is_reachable(program)


class OtherPostgres(Postgres):
    """A PostgreSQL of another version, with its programs in `binaries`."""

    def __init__(self, directory: Path, binaries: Path, port: int) -> None:
        super().__init__(directory, PostgresSettings(port=port, max_connections=50, extra={"fsync": "off"}))
        self._binaries = binaries

    def _prepare(self) -> Command:
        account = unprivileged_account()
        home = postgres_home(self._directory, account)
        self._password = secrets.token_hex(8)
        self._sockets = socket_directory(home, f".s.PGSQL.{self.port}", account)
        data = private_directory(home / "data", account)
        password_file = home / "password.new"
        password_file.write_text(self._password)
        environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}

        def command(arguments: list[str]) -> Command:
            return Command(
                arguments=arguments, cwd=home, log=home / "postgres.log", account=account, environment=environment
            )

        if account is not None:
            password_file.chmod(0o644)
        initdb = [
            str(self._binaries / "initdb"), f"--pgdata={data}", f"--username={SUPERUSER}",
            f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip
        run_to_end("initdb", command(initdb), SIGKILL)
        return command([str(self._binaries / "postgres"), "-D", str(data), *self._options()])


class PgBouncer(Server):
    """A PgBouncer in transaction mode in front of Postgres on 127.0.0.1, with so few connections that they are shared.

    `prepared` is max_prepared_statements, None where the program does not know it.
    """

    name = "pgbouncer"
    death_signal = SIGTERM
    stop_steps: ClassVar = ((SIGTERM, 10.0), (SIGKILL, 10.0))

    def __init__(self, directory: Path, program: str, port: int, server: Postgres, prepared: int | None) -> None:
        super().__init__()
        self._directory = directory
        self._program = program
        self._port = port
        self._server = server
        self._prepared = prepared
        self._known: Credentials | None = None

    def admit(self, login: Credentials) -> None:
        """Who may come; before the start."""
        self._known = login

    @property
    def dsn(self) -> str:
        """Without a user."""
        return f"postgresql://127.0.0.1:{self._port}/{DATABASE}?sslmode=disable"

    def _prepare(self) -> Command:
        account = unprivileged_account()
        home = postgres_home(self._directory, account)
        assert self._known is not None
        users = home / "users.txt"
        users.write_text(f'"{self._known.username}" "{self._known.password}"\n')
        settings = {
            "listen_addr": "127.0.0.1", "listen_port": self._port, "unix_socket_dir": "", "auth_type": "scram-sha-256",
            "auth_file": users, "pool_mode": "transaction", "default_pool_size": 3, "server_round_robin": 1,
            "ignore_startup_parameters": "extra_float_digits",
        }  # fmt: skip
        if self._prepared is not None:
            settings["max_prepared_statements"] = self._prepared
        lines = [f"{name} = {value}" for name, value in settings.items()]
        database = f"{DATABASE} = host=127.0.0.1 port={self._server.port}"
        (home / "pgbouncer.ini").write_text("\n".join(["[databases]", database, "[pgbouncer]", *lines, ""]))
        arguments = [self._program, str(home / "pgbouncer.ini")]
        return Command(arguments=arguments, cwd=home, log=home / "log", account=account, environment={})

    async def _answers(self) -> bool:
        assert self._known is not None
        try:
            connection = await asyncpg.connect(
                self.dsn, user=self._known.username, password=self._known.password, statement_cache_size=0
            )
        except (OSError, asyncpg.PostgresConnectionError):
            return False
        await connection.close()
        return True
