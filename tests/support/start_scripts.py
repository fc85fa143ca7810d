"""Start scripts as a container runs them: the same command, a PATH with little on it, paths of the test's own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentmemory.local.places import Account
from agentmemory_operator.resources.pods import shell

TOOLS = (
    "cat", "chmod", "cksum", "cut", "flock", "id", "mkdir", "mv", "rm", "sed", "sh", "sha256sum", "sleep", "sync",
)  # fmt: skip


def substituted(text: str, environment: Mapping[str, str]) -> str:
    """What Kubernetes makes of a command or an argument: `$(NAME)` is replaced where NAME is known, `$$` is `$`."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$(?:\$|\(([^)]*)\))", replace, text)


@dataclass
class Container:
    """A folder that stands for a container: what is mounted, what is on the PATH, what was said."""

    home: Path
    account: Account | None = None
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in ("data", "admin", "tls", "run", "bin", "postgres"):
            self.folder(folder)
        for tool in TOOLS:
            if (found := shutil.which(tool)) is not None:
                (self.home / "bin" / tool).symlink_to(found)
        self.environment |= {
            "PATH": str(self.home / "bin"),
            "AGENTMEMORY_DATA": str(self.home / "data"),
            "AGENTMEMORY_ADMIN": str(self.home / "admin"),
            "AGENTMEMORY_TLS": str(self.home / "tls"),
            "AGENTMEMORY_RUN": str(self.home / "run"),
            "AGENTMEMORY_POSTGRES_TLS": str(self.home / "postgres"),
            "AGENTMEMORY_VERSIONS": str(self.home / "versions"),
            "AGENTMEMORY_TERMINATION_LOG": str(self.home / "run" / "last-words"),
        }

    def folder(self, name: str) -> Path:
        """A folder that belongs to whom the container runs as."""
        path = self.home / name
        path.mkdir(mode=0o700, exist_ok=True)
        self._give(path)
        return path

    def write(self, name: str, text: str, *, mode: int = 0o600) -> Path:
        """A file that belongs to whom the container runs as."""
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        self._give(path)
        return path

    def program(self, name: str, text: str) -> None:
        """A program that the image has."""
        self.write(f"bin/{name}", text, mode=0o755)

    def _give(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    @property
    def log(self) -> str:
        """All that was said so far."""
        return (self.home / "log").read_text()

    @property
    def last_words(self) -> str:
        """What the script left for the status of its pod."""
        path = self.home / "run" / "last-words"
        return path.read_text() if path.exists() else ""

    def start(self, script: str, arguments: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Run a start script, in a session of its own."""
        command = [substituted(part, self.environment) for part in (*shell(script), *arguments)]
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd="/",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, script: str, arguments: Sequence[str] = ()) -> int:
        """Run a script to its end; answer its status."""
        return self.start(script, arguments).wait(timeout=60)

    async def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Its status, once it has ended."""
        return await asyncio.to_thread(process.wait, 60)

    async def until(self, process: subprocess.Popen[bytes], holds: Callable[[], Awaitable[bool] | bool]) -> None:
        """Wait until something holds, while the process runs."""
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            assert process.poll() is None, f"it ended with status {process.returncode}: {self.log[-2000:]}"
            await asyncio.sleep(0.01)

    def end(self) -> None:
        """Take down what still runs."""
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait(timeout=60)
