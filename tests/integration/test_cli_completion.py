"""Completion in real shells: what the tab key makes of the first letters."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TOOLS = Path(sys.executable).parent
# A function takes the place of the program only where the line itself runs it, and shows its arguments.
PREPARED = "source <(agentmemory completion {shell}); agentmemory() {{ printf '[%s]' \"$@\"; }}; echo rea''dy\r"
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], PREPARED),
    "zsh": (["-f", "-i"], "autoload -Uz compinit && compinit -u; " + PREPARED),
}
TYPED = {
    "agentmemory dead-l": "[dead-letters]",
    "agentmemory sessions sta": "[sessions][start]",
    "agentmemory turn --agent a --wait sear": "[turn][--agent][a][--wait][searchable]",
    "agentmemory recall --strate": "[recall][--strategy]",
}


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTMEMORY")}
    return kept | {"PATH": f"{TOOLS}{os.pathsep}{kept['PATH']}", "HOME": str(home), "TERM": "dumb", "PS1": "> "}


class Terminal:
    """A shell that takes what is typed."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._shown = ""

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def see(self, text: str) -> None:
        """Return once it is shown. What was shown before does not count."""
        while text not in self._shown:
            self._shown += os.read(self._file, 4096).decode(errors="replace")
        self._shown = self._shown.partition(text)[2]


@contextmanager
def opened(shell: str, home: Path) -> Iterator[Terminal]:
    options, prepare = SHELLS[shell]
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [shell, *options], stdin=inner, stdout=inner, stderr=inner, env=environment(home), start_new_session=True
    ) as process:
        os.close(inner)
        try:
            terminal = Terminal(outer)
            terminal.type(prepare.format(shell=shell))
            terminal.see("ready\r\n")
            yield terminal
        finally:
            process.kill()
            os.close(outer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    with opened(shell, tmp_path) as terminal:
        for typed, completed in TYPED.items():
            terminal.type(typed + "\t\r")
            terminal.see(completed)


def test_fish_completes(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("there is no fish here")
    file = tmp_path / ".config" / "fish" / "completions" / "agentmemory.fish"
    file.parent.mkdir(parents=True)
    script = subprocess.run(
        ["agentmemory", "completion", "fish"], env=environment(tmp_path), check=True, capture_output=True
    )
    file.write_bytes(script.stdout)
    for typed, completed in TYPED.items():
        done = subprocess.run(
            ["fish", "--command", 'complete --do-complete "$argv"', typed], env=environment(tmp_path), check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        assert completed.rpartition("[")[2].rstrip("]") in [
            line.partition("\t")[0] for line in done.stdout.splitlines()
        ], typed
