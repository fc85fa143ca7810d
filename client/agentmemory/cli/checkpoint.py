"""How far an import has come, so that the next run need not begin at the start."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec


class Checkpoint:
    """The number of the last line that was acknowledged, in a file of the user's state directory.

    It only saves time. A run that finds none, or one that is wrong, sends every turn again, and each happens once.
    """

    def __init__(self, digest: str, agent: str, url: str) -> None:
        name = hashlib.sha256(msgspec.json.encode([digest, agent, url])).hexdigest()[:32]
        self._path = state_directory() / "imports" / name

    def load(self) -> int:
        """The last acknowledged line; 0 where there is none."""
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return 0

    def store(self, line: int) -> None:
        """Note a line.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        draft.write_text(f"{line}\n")
        draft.replace(self._path)

    def clear(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)


def state_directory() -> Path:
    """Where a program keeps what it may lose."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "agentmemory"
