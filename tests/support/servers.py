"""Servers of other versions than the embedded ones, as `make servers` fetches them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

_HOME = Path(__file__).parents[2] / ".servers"
_LIBRARY = "usr/lib/*/"


def find_redis(major: int) -> str | None:
    """The redis-server of this version; None where this machine has none."""
    found = [str(program) for program in sorted(_HOME.glob("*/usr/bin/redis-check-rdb"))]
    return next((program for program in [*found, shutil.which("redis-server")] if _major(program, "v=") == major), None)


def _major(program: str | None, before: str) -> int | None:
    """What the program says of its version."""
    if program is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(rf"{before}(\d+)", said)
    return int(version[1]) if version else None
