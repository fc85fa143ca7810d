"""Commands on an agent's sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from rich.console import Console

from agentmemory.cli import show
from agentmemory.cli.faults import run
from agentmemory.cli.options import AgentName, AsJson, Url, connect, json_of
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
