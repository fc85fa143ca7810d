"""Administrative passwords: made once, kept in a file that only its owner reads."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from agentmemory.local.errors import CredentialsMissing


def obtain_password(path: Path, *, create: bool) -> str:
    """The password kept in `path`; made on first use when `create` is true.

    Raises:
        CredentialsMissing: it is not there and must not be made, because data exists that wants the old one.
    """
    if create and not path.exists():
        _store(path, secrets.token_urlsafe(32))
    password = path.read_text().strip() if path.exists() else ""
    if not password:
        raise CredentialsMissing(path)
    return password


def _store(path: Path, password: str) -> None:
    # Written beside and renamed, so that a crash never leaves an empty password behind.
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(password + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)
