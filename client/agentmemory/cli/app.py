"""All commands together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from agentmemory.cli import (
    advise,
    channels,
    completion,
    fleet,
    import_file,
    knowledge,
    local,
    memory,
    models,
    sessions,
    whole,
)

app = typer.Typer(
    name="agentmemory",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Memory for long-running AI agents: run one on this machine, fill it, ask it.",
    epilog="Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no sidecar reached.",
)
app.command()(local.local)
app.command()(local.demo)
app.command("import")(import_file.import_file)
app.command()(memory.turn)
app.command()(memory.recall)
app.command()(memory.hydrate)
app.command()(memory.document)
app.command()(memory.timeline)
app.command()(memory.timelines)
app.command()(whole.export)
app.command()(whole.erase)
app.command()(fleet.status)
app.command()(advise.advise)
app.command()(completion.completion)
app.add_typer(sessions.app, name="sessions")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(channels.app, name="channel")
app.add_typer(fleet.letters, name="dead-letters")
app.add_typer(models.app, name="models")


@app.callback(invoke_without_command=True)
def _tool(show_version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False) -> None:
    if show_version:
        typer.echo(version("agentmemory"))
        raise typer.Exit
