"""The command that makes shells complete the others."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

PROGRAM = "agentmemory"
VARIABLE = "_AGENTMEMORY_COMPLETE"


class Shell(StrEnum):
    """Those for which there is a script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Of which shell.")]) -> None:
    """Print the script that has a shell complete commands, options and their values with the tab key.

    Examples:

      source <(agentmemory completion bash)    # in ~/.bashrc

      source <(agentmemory completion zsh)     # in ~/.zshrc, after compinit

      agentmemory completion fish > ~/.config/fish/completions/agentmemory.fish
    """
    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value))
