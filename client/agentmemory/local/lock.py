"""One run at a time in a directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agentmemory.local.errors import DirectoryInUse


class DirectoryLock:
    """An advisory lock that the kernel drops when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DirectoryInUse: another run, or another object of this one, holds it.
        """
        file = os.open(self._directory / "stores.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 32).decode().strip()
            os.close(file)
            raise DirectoryInUse(self._directory, holder) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Give the lock back; no effect when it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
