"""Commands on an agent's sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from rich.console import Console

from agentmemory.cli import show
from agentmemory.cli.faults import run
from agentmemory.cli.options import AgentName, AsJson, Url, connect, json_of
from agentmemory.distillations import Distillation
from agentmemory.sessions import Session, Sessions

OBJECT = '\'{"task": "q2"}\''
LARGEST_PAGE = 1000
Metadata = Annotated[
    Any, typer.Option("--metadata", parser=json_of(dict, OBJECT), metavar="JSON", help="A JSON object.")
]
Identity = Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")]

app = typer.Typer(no_args_is_help=True, help="An agent's sessions: start, list and end them.", rich_markup_mode=None)


@app.command()
def start(
    agent: AgentName,
    session: Annotated[str | None, typer.Argument(help="Its id.", show_default="one is made")] = None,
    metadata: Metadata = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Start a session. One that is there is shown, with the metadata merged into its own."""

    async def do() -> Session:
        async with connect(url) as memory:
            return await memory.agent(agent).sessions.start(session, metadata=metadata)

    _show(run(do()), as_json)


@app.command()
def end(agent: AgentName, session: Identity, url: Url = None, as_json: AsJson = False) -> None:
    """End a session; harmless when it has ended."""

    async def do() -> Session:
        async with connect(url) as memory:
            return await memory.agent(agent).sessions.end(session)

    _show(run(do()), as_json)


@app.command()
def distill(agent: AgentName, session: Identity, url: Url = None, as_json: AsJson = False) -> None:
    """Have facts drawn from all of a session once more, whatever was drawn or given up before. Does not wait for it."""

    async def do() -> Distillation:
        async with connect(url) as memory:
            return await memory.agent(agent).sessions.distill(session)

    asked = run(do())
    if as_json:
        show.machine(asked)
    else:
        Console().print(f"{session} of {agent} is in the queue.", markup=False)


@app.command("forget-distillation")
def forget_distillation(agent: AgentName, session: Identity, url: Url = None) -> None:
    """Draw nothing more from a session that waits or was given up; what was drawn stays."""

    async def do() -> None:
        async with connect(url) as memory:
            await memory.agent(agent).sessions.forget_distillation(session)

    run(do())
    Console().print(f"{session} of {agent} is out of the queue.", markup=False)


@app.command()
def distillations(
    given_up: Annotated[
        bool | None,
        typer.Option("--given-up/--waiting", help="Only those that were given up, or that wait.", show_default="all"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 100,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Sessions that facts are still to be drawn from, and those that were given up, with the reason."""

    async def read() -> None:
        async with connect(url) as memory:
            page = await memory.distillation_page(given_up=given_up, limit=limit)
        if as_json:
            for one in page.distillations:
                show.machine(one)
            return
        show.distillations(Console(), page.distillations)
        if page.cursor is not None:
            show.errors().print("There are more: see them with --limit.")

    run(read())


@app.command("list")
def list_sessions(
    agent: AgentName,
    ended: Annotated[
        bool | None, typer.Option("--ended/--open", help="Only those that have ended, or are open.", show_default="all")
    ] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """An agent's sessions, newest first. With --json: one a line."""

    async def read() -> None:
        async with connect(url) as memory:
            sessions = memory.agent(agent).sessions
            found = [one async for one in _first(sessions, limit, ended=ended, metadata=metadata)]
        if as_json:
            for session in found:
                show.machine(session)
        else:
            show.sessions(Console(), found)

    run(read())


async def _first(sessions: Sessions, limit: int, **filters: Any) -> AsyncIterator[Session]:
    cursor: str | None = None
    while limit > 0:
        page = await sessions.page(**filters, limit=min(limit, LARGEST_PAGE), cursor=cursor)
        show.warn_degraded(page.degraded)
        for session in page.sessions:
            yield session
        limit -= len(page.sessions)
        cursor = page.cursor
        if cursor is None:
            return


def _show(session: Session, as_json: bool) -> None:
    if as_json:
        show.machine(session)
    else:
        show.sessions(Console(), [session])
