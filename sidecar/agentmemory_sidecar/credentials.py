"""Logins and authorities as mounted files, read anew for each connection, so that a rotated one needs no restart."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.redis import Credentials
from agentmemory_engine.tls import Trust

EMBEDDING = "embedding"
DISTILLATION = "distillation"


class _Absent(StoreUnavailable):
    """A file that is not there."""


class CredentialFiles:
    """`<store>-username` and `<store>-password` in one directory, `<store>-ca.crt` where an authority is given, and
    `embedding-api-key` and `distillation-api-key` where a provider wants one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def login(self, store: str) -> Callable[[], Credentials]:
        """Reads the login of `redis` or `postgres` each time it is called; raises StoreUnavailable."""

        def read() -> Credentials:
            username = self._read(store, "username")
            while True:
                login = Credentials(username, self._read(store, "password"))
                username = self._read(store, "username")
                if username == login.username:
                    return login
                # Replaced between the two: a name and a password that do not belong together are no login.

        return read

    def trust(self, store: str) -> Trust:
        """Reads the authority's certificates each time it is called; None without the file.

        Raises StoreUnavailable for one that cannot be read.
        """

        def read() -> str | None:
            try:
                return self._read(store, "ca.crt")
            except _Absent:
                return None

        return read

    def api_key(self, use: str) -> str | None:
        """The key in `<use>-api-key`; None without the file. Raises StoreUnavailable where it cannot be read."""
        try:
            return self._read(use, "api-key")
        except _Absent:
            return None

    def _read(self, store: str, part: str) -> str:
        path = self.directory / f"{store}-{part}"
        try:
            value = path.read_text().rstrip("\r\n")
        except FileNotFoundError:
            raise _Absent(store, f"cannot read {path}: FileNotFoundError.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnavailable(store, f"cannot read {path}: {type(error).__name__}.") from None
        if not value:
            raise StoreUnavailable(store, f"{path} is empty.")
        return value

    def create(self, username: str, stores: Iterable[str]) -> list[Path]:
        """Make the files that are missing, for `username` and a random password; answer which. Raises OSError."""
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        created = []
        for store in stores:
            for part, value in (("username", username), ("password", secrets.token_urlsafe(32))):
                path = self.directory / f"{store}-{part}"
                if _create(path, value):
                    created.append(path)
        return created


def _create(path: Path, value: str) -> bool:
    """Write a file that must not exist yet, whole or not at all; False when it exists (its folder may be read-only)."""
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w") as stream:
            stream.write(value + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
