"""Commands on all of an agent's memory: export and erase."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.table import Table

from agentmemory.agent import Agent
from agentmemory.cli import show
from agentmemory.cli.faults import CommandFailed, run
from agentmemory.cli.options import AsJson, Url, agent_name, connect
from agentmemory.models import Erasure

Whole = Annotated[str, typer.Argument(help="Whose memory.", callback=agent_name)]


def export(
    agent: Whole,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Where to; it must not exist yet.", show_default="stdout"),
    ] = None,
    url: Url = None,
) -> None:
    """Write all that memory holds of an agent, a JSON object a line.

    Its document, sessions, events, knowledge and dead letters. The last line says that it is whole. `agentmemory
    import` takes the file into another agent, or another memory.

    Examples:

      agentmemory export research-1 > research-1.jsonl

      agentmemory export research-1 -o research-1.jsonl
    """
    run(_export(agent, output, url))


async def _export(agent: str, output: Path | None, url: str | None) -> None:
    async with connect(url) as memory:
        if output is None:
            await _write(memory.agent(agent), sys.stdout.buffer)
            return
        try:
            target = output.open("xb")
        except FileExistsError:
            raise CommandFailed(f"{output} exists already: choose another name.") from None
        try:
            with target:
                await _write(memory.agent(agent), target)
        except BaseException:
            # Half an export must not be taken for a whole one.
            await asyncio.to_thread(output.unlink)
            raise


async def _write(agent: Agent, target: BinaryIO) -> None:
    async for line in agent.export():
        target.write(line)
    target.flush()


def erase(
    agent: Whole,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: with that of an earlier erasure, its receipt.")
    ] = None,
    within: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is gone from the stores.")] = 60.0,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Erase all of an agent's memory for good, in every tier. What it writes afterwards is a new life.

    Ends with status 1 when the erasure is accepted and not carried out in time: nothing is read any more, and the same
    command with the key that it names answers the receipt.

    Example:

      agentmemory erase research-1
    """
    if not yes:
        typer.confirm(f"Erase all that {agent} remembers, for good?", abort=True, err=True)

    async def forget() -> None:
        async with connect(url) as memory:
            erasure = await memory.agent(agent).erase(within=within, idempotency_key=key)
        show.machine(erasure) if as_json else _receipt(Console(), erasure)
        if not erasure.done:
            raise CommandFailed(
                f"accepted at {erasure.position}, and not carried out yet. For the receipt: "
                f"agentmemory erase {agent} --key {erasure.idempotency_key}"
            )

    run(forget())


def _receipt(console: Console, erasure: Erasure) -> None:
    if erasure.redis is None or erasure.postgres is None:
        return
    table = Table("gone from", "what", "how many")
    for store, counts in (("Redis", erasure.redis), ("Postgres", erasure.postgres)):
        for what, count in counts.items():
            table.add_row(store, what.replace("_", " "), f"{count:,}")
    console.print(table)
    console.print(f"Erased up to {erasure.position}. Not yet gone:", markup=False)
    for left in erasure.not_yet_gone:
        console.print(f"  {left.where}, until {left.until}", markup=False, soft_wrap=True)
