"""The command that says which mode of memory fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console

from agentmemory.advice import Advice, Costs, InvalidWorkload
from agentmemory.advice import advise as decide
from agentmemory.advice import manifest as manifest_of
from agentmemory.advice.live import Observation, observe
from agentmemory.advice.quantities import write_bytes
from agentmemory.advice.workload import Workload, describe, make_workload, read_described
from agentmemory.cli import show
from agentmemory.cli.faults import CommandFailed, run
from agentmemory.cli.options import AsJson, Url, agent_name, connect

WIDTH = 12


def advise(
    file: Annotated[
        Path | None, typer.Argument(help="A workload in YAML or JSON; options override it.", dir_okay=False)
    ] = None,
    agent: Annotated[
        list[str] | None, typer.Option("--agent", "-a", help="Count from what this agent did; may be repeated.")
    ] = None,
    agents: Annotated[int | None, typer.Option(min=1, help="How many agents there are, or will be.")] = None,
    concurrent_agents: Annotated[
        int | None, typer.Option(min=1, help="How many work at the same time.", show_default="all")
    ] = None,
    sessions_per_day: Annotated[float | None, typer.Option(min=0, help="Of each agent.", show_default="1")] = None,
    turns_per_session: Annotated[float | None, typer.Option(min=0, help="What it reports.", show_default="50")] = None,
    events_per_turn: Annotated[float | None, typer.Option(min=0, show_default="1")] = None,
    event_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Such as 350 or 4Ki.", show_default="350")
    ] = None,
    document_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the working-memory document.", show_default="2048")
    ] = None,
    polls_per_second: Annotated[
        float | None, typer.Option(min=0, help="Reads of the document by each agent.", show_default="0.1")
    ] = None,
    peak: Annotated[
        float | None, typer.Option(min=1, help="The busiest minutes to the average.", show_default="5")
    ] = None,
    recall: Annotated[
        Literal["semantic", "keyword", "none"] | None, typer.Option(help="What is searched.", show_default="semantic")
    ] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, max=4000, help="Of the vectors.", show_default="384")] = None,
    retention: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long events are kept.", show_default="for good")
    ] = None,
    loss: Annotated[
        Literal["none", "seconds", "any"] | None,
        typer.Option(help="What may be lost with a store's machine.", show_default="seconds"),
    ] = None,
    channels: Annotated[
        bool | None, typer.Option("--channels/--no-channels", help="Whether agents send each other messages.")
    ] = None,
    outage: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long agents go on while Postgres is down.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="DURATION", help="Of working memory.", show_default="1h")] = None,
    has_redis: Annotated[bool | None, typer.Option("--has-redis/--no-redis", help="Whether one is there.")] = None,
    has_postgres: Annotated[
        bool | None, typer.Option("--has-postgres/--no-postgres", help="Whether one is there.")
    ] = None,
    redis_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The most that Redis may take.", show_default="8Gi")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Say which mode of memory fits a workload, what it costs and why, with an AgentMemory to begin with.

    Examples:

      agentmemory advise --agents 50 --polls-per-second 10 --retention 90d

      agentmemory advise workload.yaml --loss none

      agentmemory advise --agent research-1 --agents 200
    """
    options = {
        "agents": agents, "concurrentAgents": concurrent_agents, "sessionsPerDay": sessions_per_day,
        "turnsPerSession": turns_per_session, "eventsPerTurn": events_per_turn, "eventSize": event_size,
        "documentSize": document_size, "pollsPerSecond": polls_per_second, "peak": peak, "recall": recall,
        "dimensions": dimensions, "retention": retention, "loss": loss, "channels": channels, "outage": outage,
        "ttl": ttl, "hasRedis": has_redis, "hasPostgres": has_postgres, "redisMemory": redis_memory,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    names = [agent_name(name) for name in agent or []]
    if not names and file is None and agents is None:
        raise typer.BadParameter("say how many --agents there are, give a FILE, or an --agent to count from.")
    seen = run(_observe(url, names)) if names else None
    advice = decide(_workload(file, seen, given))
    if as_json:
        show.machine(_machine(advice, seen))
    else:
        _show(Console(), advice, seen)


async def _observe(url: str | None, names: list[str]) -> Observation:
    async with connect(url) as memory:
        try:
            return await observe(memory, names)
        except ValueError as error:
            raise CommandFailed(str(error)) from None


def _workload(file: Path | None, seen: Observation | None, given: Mapping[str, Any]) -> Workload:
    try:
        described = dict(seen.described) if seen else {}
        described |= read_described(file) if file is not None else {}
        return make_workload(described | dict(given), str(file) if file is not None else "the workload")
    except InvalidWorkload as error:
        raise typer.BadParameter(str(error)) from None


def _machine(advice: Advice, seen: Observation | None) -> dict[str, Any]:
    return {
        "mode": advice.mode,
        "reasons": advice.reasons,
        "mind": advice.mind,
        "verdicts": advice.verdicts,
        "workload": describe(advice.workload),
        "findings": seen.findings if seen else [],
        "manifest": manifest_of(advice),
    }


def _show(console: Console, advice: Advice, seen: Observation | None) -> None:
    workload = advice.workload

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if seen is not None:
        say(f"Counted from {seen.events:,} events.")
        _list(console, seen.findings)
    say(
        f"{workload.agents:,} agents, {workload.turns_a_day:,.0f} turns a day, {workload.turns_a_second:,.1f} a second "
        f"at the peak, {workload.polls_a_second:,.1f} reads a second."
    )
    console.print(f"\nMode: {advice.mode}", style="bold", highlight=False)
    _list(console, advice.reasons)
    _list(console, _costs(advice.costs))
    if advice.mind:
        say("\nMind:")
        _list(console, advice.mind)
    say("\nThe others:")
    for verdict in advice.verdicts[1:]:
        why = " ".join(verdict.against) or "It would do, with more to run or to spend."
        _list(console, [f"{verdict.mode}: {why} {' '.join(_costs(verdict.costs)[:2])}"])
    say("\nAn AgentMemory to begin with:\n")
    console.out(yaml.safe_dump(manifest_of(advice), sort_keys=False).rstrip(), highlight=False)


def _list(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(f"  - {line}", markup=False, highlight=False, soft_wrap=True)


def _costs(costs: Costs) -> list[str]:
    stores = (
        ("Redis", costs.redis_memory, costs.redis_disk, costs.redis_parts),
        ("Postgres", costs.postgres_memory, costs.postgres_disk, costs.postgres_parts),
    )
    lines = [
        f"{name}: {write_bytes(memory)} of memory, {write_bytes(disk)} of disk ({_parts(parts)})."
        for name, memory, disk, parts in stores
        if memory
    ]
    return [*lines, f"Each pod: a sidecar of {write_bytes(costs.sidecar_memory)}."]


def _parts(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {write_bytes(size)}" for name, size in parts.items())
