"""What a run ran on: the machine, the versions, the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from agentmemory_engine.embedding.assets import MODEL
from benchmarks.stage import Stage

_PACKAGES = ("agentmemory", "aiohttp", "asyncpg", "hiredis", "msgspec", "numpy", "onnxruntime", "uvloop")


def describe_machine() -> dict[str, str]:
    """Processor, cores, memory and system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": f"{cores}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "load before": ", ".join(f"{load:.2f}" for load in os.getloadavg()) + " (1, 5, 15 minutes)",
    }


def _processor() -> str:
    """Its name, which Linux tells in a file only."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"


async def describe_versions(stage: Stage) -> dict[str, str]:
    """Of the stores, of Python and the packages that matter, and of this code."""
    admin = await stage.admin()
    try:
        postgres = await admin.fetchval("SHOW server_version")
        vector = await admin.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        buffers = await admin.fetchval("SHOW shared_buffers")
    finally:
        await admin.close()
    with stage.redis() as redis:
        information = redis.command("INFO", "server").decode()
    fields = dict(line.split(":", 1) for line in information.splitlines() if ":" in line)
    valkey = fields.get("valkey_version") or fields["redis_version"]
    return {
        "code": _commit(),
        "Valkey": f"{valkey}, append-only file, fsync every second",
        "PostgreSQL": f"{postgres}, pgvector {vector}, shared_buffers {buffers}, fsync on",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "model": MODEL,
    }


def _commit() -> str:
    """The commit, and whether the code differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (", with changes" if changes.stdout.strip() else "")


def show_command(arguments: Sequence[str]) -> str:
    """The command line as it can be published: files by their names, without where they stand."""
    shown = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            shown.append(f"{option}={Path(value).name}" if os.sep in value else argument)
        else:
            shown.append(Path(argument).name if os.sep in argument else argument)
    return " ".join(["python -m benchmarks", *shown])


def command_of_this_run() -> str:
    """How this process was started."""
    return show_command(sys.argv[1:])
