"""Commands on one agent's memory: turn, recall, hydrate, document, timeline, timelines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from agentmemory.cli import show
from agentmemory.cli.faults import run
from agentmemory.cli.options import (
    AgentName,
    AsJson,
    Reached,
    Session,
    Since,
    Types,
    Until,
    Url,
    connect,
    json_of,
    moment,
)
from agentmemory.models import Event

OBJECT = "'{\"step\": 3}'"
LARGEST_PAGE = 500


Role = Annotated[str | None, typer.Option(help="Only this role.")]
Metadata = Annotated[
    Any, typer.Option(parser=json_of(dict, OBJECT), metavar="JSON", help="Only events with these members.")
]


class Included(StrEnum):
    """What is searched."""

    events = "events"
    knowledge = "knowledge"


class Order(StrEnum):
    """Oldest or newest first."""

    asc = "asc"
    desc = "desc"


def turn(
    agent: AgentName,
    content: Annotated[str | None, typer.Argument(help="What was said or done.")] = None,
    session: Annotated[str | None, typer.Option("--session", "-s", help="The session it belongs to.")] = None,
    role: Annotated[str | None, typer.Option(help="Who: user, assistant, system, tool, …")] = None,
    type: Annotated[str, typer.Option("--type", "-t", help="message, tool_call, decision, observation, …")] = "message",
    at: Annotated[
        str | None, typer.Option(callback=moment, metavar="DATE", help="When it happened.", show_default="now")
    ] = None,
    payload: Annotated[
        Any, typer.Option(parser=json_of(object, OBJECT), metavar="JSON", help="Any JSON to go with it.")
    ] = None,
    metadata: Annotated[
        Any, typer.Option(parser=json_of(dict, OBJECT), metavar="JSON", help="An object to filter by later.")
    ] = None,
    set: Annotated[
        Any, typer.Option(parser=json_of(dict, OBJECT), metavar="JSON", help="Replace the working-memory document.")
    ] = None,
    merge: Annotated[
        Any, typer.Option(parser=json_of(dict, OBJECT), metavar="JSON", help="Merge this into the document.")
    ] = None,
    patch: Annotated[
        Any,
        typer.Option(
            parser=json_of(list, '\'[{"op": "remove", "path": "/step"}]\''), metavar="JSON", help="A JSON Patch of it."
        ),
    ] = None,
    if_match: Annotated[str | None, typer.Option(metavar="VERSION", help="The version the document must have.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same turn with the same key happens once.")
    ] = None,
    wait: Annotated[Reached | None, typer.Option(help="Return only when it has come that far.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Record a turn: an event, a change of the working-memory document, or both at once.

    Examples:

      agentmemory turn --agent research-1 "Find the trend of the second quarter" --role user --session day-1

      agentmemory turn --agent research-1 --type decision "Use the audited figures" --merge '{"source": "audit"}'
    """
    told = content is not None or payload is not None
    event = {"type": type, "role": role, "content": content, "at": at, "payload": payload, "metadata": metadata}
    changes = {"set": set, "merge": merge, "patch": patch}
    if sum(change is not None for change in changes.values()) > 1:
        raise typer.BadParameter("one of --set, --merge and --patch at a time.")
    if not told and not any(change is not None for change in changes.values()):
        raise typer.BadParameter("say what happened (CONTENT or --payload) or change the document (--merge …).")

    async def record() -> None:
        async with connect(url) as memory:
            written = await memory.agent(agent).record(
                [event] if told else [], session=session, if_match=if_match, idempotency_key=key, **changes
            )
            if wait is not None:
                await memory.wait(written, until=wait.value)
        if as_json:
            show.machine(written)
        else:
            show.receipt(Console(), written)

    run(record())


def recall(
    query: Annotated[str, typer.Argument(help="What to remember.")],
    agent: AgentName,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many.")] = 5,
    types: Types = None,
    session: Session = None,
    since: Since = None,
    until: Until = None,
    metadata: Metadata = None,
    min_score: Annotated[float | None, typer.Option(help="Nothing below this score.")] = None,
    strategy: Annotated[
        Literal["hybrid", "semantic", "keyword"] | None, typer.Option(help="How to search.", show_default="hybrid")
    ] = None,
    half_life: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Prefer newer events: the age at which half of it is left.")
    ] = None,
    recency_weight: Annotated[float, typer.Option(min=0, max=1, help="How much, with --half-life.")] = 0.2,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="Put back what repeats an earlier hit.")] = 0.0,
    time_zone: Annotated[
        str | None, typer.Option(help="Of the times that the query names.", show_default="UTC")
    ] = None,
    include: Annotated[
        list[Included] | None,
        typer.Option(help="events, knowledge (facts), or twice for both.", show_default="events"),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Search an agent's memory by meaning and by keyword.

    Example:

      agentmemory recall "what did the supplier promise?" --agent research-1 --since 2026-01-12 -k 3
    """

    async def ask() -> None:
        async with connect(url) as memory:
            found = await memory.agent(agent).recall(
                query,
                k=k,
                strategy=strategy,
                recency=None if half_life is None else (half_life, recency_weight),
                diversity=diversity or None,
                time_zone=time_zone,
                include=[one.value for one in include or ()],
                types=types or (),
                session=session,
                since=since,
                until=until,
                metadata=metadata,
                min_score=min_score,
            )
        if as_json:
            show.machine(found)
        else:
            show.hits(Console(), found)
            show.warn_degraded(found.degraded)

    run(ask())


def hydrate(
    agent: AgentName,
    query: Annotated[str | None, typer.Argument(help="What the agent is about to do.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Budget for the text, in tokens.")] = 2000,
    restore: Annotated[bool, typer.Option("--restore", help="Bring an expired or unreadable document back.")] = False,
    k: Annotated[int | None, typer.Option("-k", min=1, max=100, help="How many events to recall.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Assemble what an agent needs to know on wake-up: its document, recent messages, and what is recalled.

    Example:

      agentmemory hydrate "go on with the supplier comparison" --agent research-1 --tokens 1000
    """

    async def wake() -> None:
        async with connect(url) as memory:
            context = await memory.agent(agent).hydrate(query, tokens=tokens, restore=restore, k=k)
        if as_json:
            show.machine(context)
            return
        if context.cold_start:
            show.errors().print(f"Cold start: {context.cold_start}.", markup=False)
        for one in context.quarantined:
            show.errors().print(f"Set aside as dead letter {one.id}: {one.reason}", markup=False)
        typer.echo(context.text)
        show.warn_degraded(context.degraded)

    run(wake())


def document(
    agent: AgentName,
    path: Annotated[
        str | None, typer.Option(metavar="JSONPATH", help="Only what this leads to, such as '$.tasks[0]'.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="The snapshot of this version.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """The working-memory document, or parts of it: a value a line behind its place.

    Example:

      agentmemory document --agent research-1 --path '$.current_task.step'
    """

    async def read() -> None:
        async with connect(url) as memory:
            if path is None:
                show.machine((await memory.agent(agent).working_memory(version=version)).document)
                return
            found = await memory.agent(agent).select(path, version=version)
        if as_json:
            show.machine(found)
            return
        for match in found.matches:
            typer.echo(f"{match.path}  {show.to_json(match.value)}")

    run(read())


def timeline(
    agent: AgentName,
    since: Since = None,
    until: Until = None,
    types: Types = None,
    session: Session = None,
    role: Role = None,
    metadata: Metadata = None,
    order: Annotated[Order, typer.Option(help="Oldest or newest first.")] = Order.asc,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many events.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="All of them, whatever --limit says.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What an agent did, in order. With --json: one event a line.

    Examples:

      agentmemory timeline --agent research-1 --since 2026-01-13 --until 2026-01-14 --type decision

      agentmemory timeline --agent research-1 --order desc -n 5
    """

    async def read() -> None:
        async with connect(url) as memory:
            await _read_pages(
                memory.agent(agent).timeline_page, None if everything else limit, as_json, since=since, until=until,
                types=types or (), session=session, role=role, metadata=metadata, order=order.value,
            )  # fmt: skip

    run(read())


def timelines(
    agents: Annotated[
        list[str] | None, typer.Argument(help="Whose.", show_default="all that the sidecar's pod may name")
    ] = None,
    since: Since = None,
    until: Until = None,
    types: Types = None,
    session: Session = None,
    role: Role = None,
    metadata: Metadata = None,
    order: Annotated[Order, typer.Option(help="Oldest or newest first.")] = Order.asc,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many events.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="All of them, whatever --limit says.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What several agents did, by the time of acceptance. With --json: one event a line.

    Example:

      agentmemory timelines research-1 writer-2 --since 2026-01-13 --metadata '{"task": "q2"}'
    """

    async def read() -> None:
        async with connect(url) as memory:
            await _read_pages(
                partial(memory.timeline_page, agents or ()), None if everything else limit, as_json, since=since,
                until=until, types=types or (), session=session, role=role, metadata=metadata, order=order.value,
            )  # fmt: skip

    run(read())


async def _read_pages(read: Callable[..., Awaitable[Any]], left: int | None, as_json: bool, **query: Any) -> None:
    """Print page after page, until `left` events are printed (None: all)."""
    cursor: str | None = None
    while left is None or left > 0:
        page = await read(limit=min(LARGEST_PAGE, left or LARGEST_PAGE), cursor=cursor, **query)
        _print_events(page.events, as_json)
        show.warn_degraded(page.degraded)
        left = None if left is None else left - len(page.events)
        cursor = page.cursor
        if cursor is None:
            return


def _print_events(found: Sequence[Event], as_json: bool) -> None:
    if as_json:
        for event in found:
            show.machine(event)
    else:
        show.events(Console(), found)
