"""Where a store's files stand, and whose they are. Nothing here ever changes the mode of a parent folder."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from agentmemory.local.errors import AccountMissing, DataMissing, ForeignDirectory, StoresMoved

# What the shortest `sun_path` (macOS) holds, less the closing NUL.
LONGEST_SOCKET_PATH = 103
UNPRIVILEGED = "nobody"
# For root alone: the first that can be written is used.
SHARED_BASES = (Path("/var/lib/agentmemory"), Path("/var/tmp/agentmemory-root"))


@dataclass(frozen=True)
class Account:
    """A user of the operating system that a server runs as."""

    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Whom PostgreSQL runs as: `nobody` when we are root, else None, which is ourselves.

    Raises:
        AccountMissing: we are root and there is no `nobody`.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise AccountMissing(UNPRIVILEGED) from None
    return Account(entry.pw_uid, entry.pw_gid)


def private_directory(path: Path, account: Account | None = None) -> Path:
    """Make `path` a folder of mode 0700 that belongs to `account` (default: us), or check that it is one.

    Raises:
        ForeignDirectory: it is something else, or someone else's.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    owner = account.uid if account else os.geteuid()
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()) or found.st_mode & 0o077:
        raise ForeignDirectory(path, owner)
    if account and found.st_uid != owner:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return path


def home_directory(path: Path, account: Account | None) -> Path:
    """The folder around a server's data and sockets: ours alone to write to, and for `account` to pass through.

    What we write as root must not stand in a folder where the server could put a link in its place.

    Raises:
        ForeignDirectory: it is something else, or someone else's.
    """
    return _trusted_directory(path) if account else private_directory(path)


def is_reachable(path: Path) -> bool:
    """Whether every user may enter (or run) `path`, an existing folder or program, and all its parents."""
    resolved = path.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (resolved, *resolved.parents))


def socket_directory(home: Path, socket_name: str, account: Account | None = None) -> Path:
    """A private folder for a Unix socket: `home`/run, or a short one of its own where that path is too long."""
    preferred = home / "run"
    fits = len(os.fsencode(preferred / socket_name)) <= LONGEST_SOCKET_PATH
    return private_directory(preferred if fits else _short_socket_directory(home), account)


def shared_base() -> Path:
    """A folder that belongs to root and that everyone may enter, for what `nobody` must reach.

    Raises:
        ForeignDirectory: it is there, but someone else could write to it.
        OSError: none can be made.
    """
    *others, last = SHARED_BASES
    for base in others:
        try:
            return _trusted_directory(base)
        except OSError:
            continue
    return _trusted_directory(last)


def postgres_home(directory: Path, account: Account | None) -> Path:
    """The folder with PostgreSQL's data, below `directory` where its account can reach that.

    Raises:
        StoresMoved: the data stands elsewhere, and names another directory as its own.
        DataMissing: the data stood elsewhere, and is gone.
        ForeignDirectory: the data belongs to another account.
    """
    if recorded := recorded_home(directory):
        if not recorded.exists():
            raise DataMissing(recorded, directory)
        return recorded
    if account is None or (directory / "postgres").exists() or is_reachable(directory):
        return home_directory(directory / "postgres", account)
    home = home_directory(shared_base() / _fingerprint(directory), account)
    (home / "directory").write_text(f"{directory}\n")
    _location_file(directory).write_text(f"{home}\n")
    return home


def recorded_home(directory: Path) -> Path | None:
    """The folder outside `directory` that an earlier start chose for PostgreSQL, if it did; it may be gone since.

    Raises:
        StoresMoved: that folder names another directory as its own.
        ForeignDirectory: root chose it, and we are not root.
    """
    if not _location_file(directory).exists():
        return None
    home = Path(_location_file(directory).read_text().strip())
    if not home.exists():
        return home
    if home.lstat().st_uid != os.geteuid():
        raise ForeignDirectory(home, os.geteuid())
    owner = (home / "directory").read_text().strip()
    if owner != str(directory):
        raise StoresMoved(home, owner, directory)
    return home


def erase_homes(directory: Path) -> None:
    """Remove all that the stores keep for `directory`: data, passwords, sockets.

    Raises:
        StoresMoved: PostgreSQL's data stands elsewhere, and names another directory as its own.
        ForeignDirectory: the data belongs to another account.
    """
    homes = [home for home in (recorded_home(directory), directory / "postgres", directory / "valkey") if home]
    for home in homes:
        if home.exists():
            _erase_home(home)
    for pattern in ("*.password", "*.new", "postgres.location"):
        for file in directory.glob(pattern):
            file.unlink()


def _erase_home(home: Path) -> None:
    if home.is_symlink() or home.lstat().st_uid != os.geteuid():
        raise ForeignDirectory(home, os.geteuid())
    sockets = _short_socket_directory(home)
    account = unprivileged_account()
    if sockets.exists() and sockets.lstat().st_uid in (os.geteuid(), account.uid if account else None):
        shutil.rmtree(sockets)
    shutil.rmtree(home)


def _short_socket_directory(home: Path) -> Path:
    return Path("/tmp") / f"agentmemory-{_fingerprint(home)}"


def _location_file(directory: Path) -> Path:
    return directory / "postgres.location"


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _trusted_directory(path: Path) -> Path:
    try:
        path.mkdir(mode=0o755)
        path.chmod(0o755)  # whatever the umask
    except FileExistsError:
        pass
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise ForeignDirectory(path, 0)
    return path
