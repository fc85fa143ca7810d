"""Commands on the whole memory: status, and the dead letters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agentmemory.cli import show
from agentmemory.cli.faults import CommandFailed, run
from agentmemory.cli.options import AsJson, Url, agent_name, connect

letters = typer.Typer(
    no_args_is_help=True,
    help="Events that Postgres refuses for a reason that trying again cannot mend, and documents that cannot be read.",
)
LetterAgent = Annotated[str, typer.Argument(help="The agent it belongs to.", callback=agent_name)]
LetterId = Annotated[str, typer.Argument(help="Its id, from `list`.")]


def status(
    position: Annotated[str | None, typer.Option(help="How far this turn has come; with --agent.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", "-a", help="Whose turn.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """How the memory does: lag, counts, shards. Ends with status 1 when a store or a shard is not available.

    Examples:

      agentmemory status

      agentmemory status --agent research-1 --position 3.1-42
    """
    if (position is None) != (agent is None):
        raise typer.BadParameter("--position and --agent go together.")
    if position is not None and agent is not None:
        run(_state(url, agent, position, as_json))
    else:
        run(_status(url, as_json))


@letters.command("list")
def list_letters(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 100,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show them. With --json: one a line."""

    async def show_them() -> None:
        async with connect(url) as memory:
            page = await memory.dead_letter_page(limit=limit)
        if as_json:
            for letter in page.dead_letters:
                show.machine(letter)
            return
        show.dead_letters(Console(), page.dead_letters)
        if page.cursor is not None:
            show.errors().print("There are more: see them with --limit, or export them.")

    run(show_them())


@letters.command()
def read(agent: LetterAgent, id: LetterId, url: Url = None) -> None:
    """Write one to standard output, byte for byte as it was found."""

    async def fetch() -> bytes:
        async with connect(url) as memory:
            return await memory.dead_letter_bytes(agent, id)

    sys.stdout.buffer.write(run(fetch()))
    sys.stdout.buffer.flush()


@letters.command()
def replay(agent: LetterAgent, id: LetterId, url: Url = None) -> None:
    """Offer an event to Postgres again, once what it was refused for is mended."""

    async def offer() -> None:
        async with connect(url) as memory:
            await memory.replay(agent, id)
        Console().print(f"{id} of {agent} is in memory now.", markup=False)

    run(offer())


@letters.command()
def discard(
    agent: LetterAgent,
    id: LetterId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete one for good. Export it first if in doubt."""
    if not yes:
        typer.confirm(f"Delete dead letter {id} of {agent} for good?", abort=True, err=True)

    async def drop() -> None:
        async with connect(url) as memory:
            await memory.discard(agent, id)
        Console().print(f"{id} of {agent} is deleted.", markup=False)

    run(drop())


@letters.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to; it must not exist yet.", dir_okay=False)], url: Url = None
) -> None:
    """Write all of them to FILE, one JSON object a line."""

    async def write() -> None:
        count = 0
        try:
            target = file.open("x", encoding="utf-8")
        except FileExistsError:
            raise CommandFailed(f"{file} exists already: choose another name.") from None
        with target:
            async with connect(url) as memory:
                async for letter in memory.dead_letters():
                    target.write(f"{show.to_json(letter)}\n")
                    count += 1
        Console().print(f"{count:,} dead letters are in {file}.", markup=False)

    run(write())


async def _status(url: str | None, as_json: bool) -> None:
    async with connect(url) as memory:
        found = await memory.status()
    if as_json:
        show.machine(found)
    else:
        show.status(Console(), found)
    if not found.ready:
        raise CommandFailed("not ready: a store does not answer, or a shard is not open.")


async def _state(url: str | None, agent: str, position: str, as_json: bool) -> None:
    async with connect(url) as memory:
        state = await memory.state(agent, position)
    if as_json:
        show.machine({"agent": agent, "position": position, "state": state})
    else:
        typer.echo(state)
