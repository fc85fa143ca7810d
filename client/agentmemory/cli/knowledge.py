"""Commands on an agent's knowledge."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

from agentmemory.cli import show
from agentmemory.cli.faults import run
from agentmemory.cli.options import AgentName, AsJson, Url, connect, json_of, moment
from agentmemory.models import Fact

OBJECT = '\'{"task": "q2"}\''
LARGEST_PAGE = 1000
Metadata = Annotated[
    Any, typer.Option("--metadata", parser=json_of(dict, OBJECT), metavar="JSON", help="A JSON object.")
]
Topics = Annotated[list[str] | None, typer.Option("--topic", "-t", help="Only this topic; may be repeated.")]
Confidence = Annotated[float | None, typer.Option(min=0, max=1, help="Nothing less sure.")]
At = Annotated[str | None, typer.Option(callback=moment, metavar="DATE", help="What was believed then (UTC).")]

app = typer.Typer(
    no_args_is_help=True, help="What an agent knows: tell it facts, list and search them.", rich_markup_mode=None
)


class Strategy(StrEnum):
    """How to search."""

    hybrid = "hybrid"
    semantic = "semantic"
    keyword = "keyword"


@app.command()
def put(
    agent: AgentName,
    content: Annotated[str, typer.Argument(help="The fact.")],
    topic: Annotated[str, typer.Option("--topic", "-t", help="What it is about.")],
    key: Annotated[str | None, typer.Option(help="Take the place of what is believed under this key.")] = None,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="How sure it is.")] = 1.0,
    source: Annotated[list[str] | None, typer.Option(help="Id of an event it is from; may be repeated.")] = None,
    metadata: Metadata = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Tell an agent a fact.

    Example:

      agentmemory knowledge put --agent research-1 --topic suppliers --key acme.price "Acme asks 1.20 a piece"
    """

    async def do() -> Fact:
        async with connect(url) as memory:
            return await memory.agent(agent).knowledge.put(
                topic, content, key=key, confidence=confidence, sources=source or (), metadata=metadata
            )

    _show([run(do())], as_json)


@app.command("list")
def list_facts(
    agent: AgentName,
    key: Annotated[str | None, typer.Option(help="Only this key.")] = None,
    topics: Topics = None,
    metadata: Metadata = None,
    min_confidence: Confidence = None,
    at: At = None,
    history: Annotated[bool, typer.Option("--history", help="What is no longer believed as well.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=LARGEST_PAGE, help="At most so many.")] = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What an agent believes, newest belief first. With --json: one fact a line.

    Example:

      agentmemory knowledge list --agent research-1 --key acme.price --history
    """

    async def do() -> list[Fact]:
        async with connect(url) as memory:
            page = await memory.agent(agent).knowledge.page(
                key=key,
                topics=topics or (),
                metadata=metadata,
                min_confidence=min_confidence,
                at=at,
                history=history,
                limit=limit,
            )
        return page.facts

    _show(run(do()), as_json)


@app.command()
def search(
    agent: AgentName,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many.")] = 5,
    strategy: Annotated[Strategy, typer.Option(help="By meaning, by words, or by both.")] = Strategy.hybrid,
    topics: Topics = None,
    metadata: Metadata = None,
    min_confidence: Confidence = None,
    at: At = None,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Nothing below this score.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Search what an agent believes, by meaning and by words."""

    async def ask() -> None:
        async with connect(url) as memory:
            found = await memory.agent(agent).knowledge.search(
                query,
                k=k,
                strategy=strategy.value,
                topics=topics or (),
                metadata=metadata,
                min_confidence=min_confidence,
                at=at,
                min_score=min_score,
            )
        if as_json:
            show.machine(found)
        else:
            show.found_facts(Console(), found)
            show.warn_degraded(found.degraded)

    run(ask())


@app.command()
def end(
    agent: AgentName,
    fact: Annotated[str, typer.Argument(metavar="ID", help="Which fact.")],
    erase: Annotated[bool, typer.Option("--erase", help="Remove it with its history, for good.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Believe a fact no longer. Its history stays, unless it is erased."""

    async def do() -> Fact | int:
        async with connect(url) as memory:
            knowledge = memory.agent(agent).knowledge
            return await (knowledge.erase(fact) if erase else knowledge.end(fact))

    ended = run(do())
    if isinstance(ended, Fact):
        _show([ended], as_json)
    elif as_json:
        show.machine({"erased": ended})
    else:
        typer.echo(f"{ended} versions erased.")


def _show(found: list[Fact], as_json: bool) -> None:
    if as_json:
        for fact in found:
            show.machine(fact)
    else:
        show.facts(Console(), found)
