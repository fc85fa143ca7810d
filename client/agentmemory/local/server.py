"""A server that runs as our child: started, awaited, stopped, and crashed on purpose."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from agentmemory.local.errors import NotRunning, StoreFailed
from agentmemory.local.places import Account

READINESS_INTERVAL = 0.01  # seconds
LEFTOVER_PATIENCE = 30.0  # seconds
LARGEST_LOG = 8 * 1024 * 1024  # bytes
TAIL = 2000  # bytes
_STILL = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run, where, as whom, and where its words go."""

    arguments: Sequence[str]
    cwd: Path
    log: Path
    account: Account | None
    environment: Mapping[str, str]


class Server(ABC):
    """A child process that serves on a socket.

    Start it from a thread that lives as long as the server shall: where the kernel can do so, it ends the server
    with the thread that started it, so that a run that is killed leaves nothing behind.
    """

    name: ClassVar[str]
    death_signal: ClassVar[signal.Signals]
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]]  # (what to send, seconds to wait for it)

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> Command:
        """Make all ready for a start: blocking, run in a thread. Leaves no older server of these data running."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether the server takes work by now."""

    @property
    def running(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The main process.

        Raises:
            NotRunning: there is none.
        """
        return self._running_process().pid

    async def start(self) -> None:
        """Start, and wait until the server takes work, however long its recovery takes. No effect when it runs.

        Raises:
            StoreFailed: the process ended first.
        """
        if self.running:
            return
        command = await asyncio.to_thread(self._prepare)
        start_of_words = _rotate(command.log)
        self._process = _spawn(command, self.death_signal)
        try:
            await self._wait_until_ready(command.log, start_of_words)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    async def stop(self) -> None:
        """End the server in good order, by force only when it takes too long. No effect when it does not run."""
        if not self.running:
            return
        process = self._running_process()
        self.resume()
        for step, patience in self.stop_steps:
            process.send_signal(step)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, patience)
                return

    async def kill(self) -> None:
        """Crash: SIGKILL to the main process; returns once it is gone. Its children find out by themselves.

        Raises:
            NotRunning: there is nothing to kill.
        """
        process = self._running_process()
        family = _family(process.pid)
        process.kill()
        await asyncio.to_thread(process.wait)
        for member in family:  # a paused child would never find out
            with suppress(psutil.NoSuchProcess):
                member.resume()

    def pause(self) -> None:
        """Freeze the server and all its children: connections stay open, and nothing answers.

        Raises:
            NotRunning: there is nothing to pause.
        """
        _freeze([psutil.Process(self.pid)])  # first, so that no child is added to those listed next
        _freeze(_family(self.pid)[1:])

    def resume(self) -> None:
        """Undo `pause`; no effect on a server that is not paused.

        Raises:
            NotRunning: there is nothing to resume.
        """
        for member in reversed(_family(self.pid)):
            with suppress(psutil.NoSuchProcess):
                member.resume()

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise NotRunning(self.name)
        return self._process

    async def _wait_until_ready(self, log: Path, start_of_words: int) -> None:
        assert self._process is not None
        while not await self._answers():
            if (status := self._process.poll()) is not None:
                raise StoreFailed(self.name, status, read_tail(log, start_of_words))
            await asyncio.sleep(READINESS_INTERVAL)


def take_down_leftovers(executable: str, cwd: Path, pid_file: Path, request: signal.Signals) -> None:
    """End what an earlier run left running on the data in `cwd`. Blocks until it is gone.

    Only processes of that program whose working directory is that folder count as ours, whatever `pid_file` says: the
    number in it may be another's by now. The one it names is asked with `request`; the others (children without a
    parent) end by themselves. What is left after a while is killed.
    """
    if not pid_file.exists():
        return
    leftovers = _processes_in(cwd, executable)
    leader = pid_file.read_text().partition("\n")[0].strip()
    for process in leftovers:
        with suppress(psutil.NoSuchProcess):
            process.resume()
            if str(process.pid) == leader:
                process.send_signal(request)
    for process in _wait_for(leftovers, LEFTOVER_PATIENCE):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for(leftovers, LEFTOVER_PATIENCE)
    pid_file.unlink(missing_ok=True)


def run_to_end(what: str, command: Command, death_signal: signal.Signals) -> None:
    """Run a set-up program and wait for it.

    Raises:
        StoreFailed: it ended with another status than 0.
    """
    start_of_words = _rotate(command.log)
    status = _spawn(command, death_signal).wait()
    if status != 0:
        raise StoreFailed(what, status, read_tail(command.log, start_of_words))


def read_tail(log: Path, start: int) -> str:
    """The last words in `log`, none of them before `start` (in bytes)."""
    with log.open("rb") as stream:
        stream.seek(max(start, log.stat().st_size - TAIL))
        return stream.read().decode(errors="replace").strip()


def _rotate(log: Path) -> int:
    log.touch(mode=0o600)
    if log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
        log.touch(mode=0o600)
    return log.stat().st_size


def _spawn(command: Command, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
    account = command.account
    with command.log.open("ab") as log:
        return subprocess.Popen(
            [*_tied_to_us(death_signal), *command.arguments],
            cwd=command.cwd,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,  # a terminal's Ctrl-C is for us, and we stop the servers in order
            umask=0o077,
        )


def _tied_to_us(death_signal: signal.Signals) -> list[str]:
    # Without it (macOS, an old util-linux) a leftover is taken down by the next start. `preexec_fn` would do the
    # same, but is unsafe beside threads.
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    wrapper = [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG")]
    probe = subprocess.run([*wrapper, "true"], check=False, capture_output=True, env=os.environ)
    return wrapper if probe.returncode == 0 else []


def _family(pid: int) -> list[psutil.Process]:
    try:
        main = psutil.Process(pid)
        return [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _processes_in(directory: Path, executable: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or not ours to look at
            if process.name() == executable and process.cwd() == str(directory):
                found.append(process)
    return found


def _wait_for(processes: Sequence[psutil.Process], patience: float) -> list[psutil.Process]:
    deadline = time.monotonic() + patience
    alive = list(processes)
    while (alive := [process for process in alive if _is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(READINESS_INTERVAL)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    # An orphan below an init that reaps no one stays a zombie for ever; it holds nothing.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _freeze(members: list[psutil.Process]) -> None:
    """Suspend all of them, and wait until they stand still: the signal alone only asks for it."""
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.suspend()
    for member in members:
        with suppress(psutil.NoSuchProcess):
            while member.status() not in _STILL:
                time.sleep(0.001)
