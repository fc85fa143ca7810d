"""How answers look to a person, and to a program."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentmemory.channels import ChannelInfo, Message, Published
from agentmemory.distillations import Distillation
from agentmemory.knowledge import FoundFacts
from agentmemory.models import (
    AgentEvent,
    BackFill,
    DeadLetter,
    EmbeddingModel,
    Event,
    Fact,
    Recalled,
    Receipt,
    Status,
)
from agentmemory.sessions import Session

LONGEST_PAYLOAD = 200  # characters
UNKNOWN = "unknown"
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def errors() -> Console:
    """Where progress and warnings go."""
    return Console(stderr=True)


def machine(value: Any) -> None:
    """One line of JSON."""
    typer.echo(to_json(value))


def to_json(value: Any) -> str:
    """JSON on one line, every number as it came."""
    return _ENCODER.encode(value).decode()


def warn_degraded(degraded: Sequence[str]) -> None:
    """Say that an answer is not whole."""
    if degraded:
        errors().print(f"The answer is not whole: {', '.join(degraded)}.", style="yellow", markup=False)


def receipt(console: Console, written: Receipt) -> None:
    """What a write was given."""
    again = " (an earlier try had come through)" if written.repeated else ""
    console.print(f"Accepted at {written.position}{again}.", markup=False)


def events(console: Console, found: Sequence[Event]) -> None:
    """A timeline."""
    for event in found:
        console.print(_line(event), soft_wrap=True)


def hits(console: Console, found: Recalled) -> None:
    """What was recalled, best first."""
    for hit in found.hits:
        said = _line(hit) if isinstance(hit, Event) else _fact(hit)
        console.print(Text(f"{hit.score:.3f}  ", style="bold cyan") + said, soft_wrap=True)
    if not found.hits:
        console.print("Nothing is recalled.")
    if found.not_yet_searchable:
        console.print(f"{found.not_yet_searchable} of this agent's wait for their vectors.", style="dim")


def sessions(console: Console, found: Sequence[Session]) -> None:
    """Sessions, a line each."""
    table = Table("session", "started", "last event", "ended", "metadata")
    for one in found:
        moments = [_time(at) if at else "-" for at in (one.started_at, one.last_event_at, one.ended_at)]
        table.add_row(Text(one.id), *moments, Text(_short(one.metadata) if one.metadata else ""))
    console.print(table if found else "No sessions.")


def facts(console: Console, found: Sequence[Fact]) -> None:
    """Facts, a line each."""
    for fact in found:
        console.print(_fact(fact), soft_wrap=True)
    if not found:
        console.print("No facts.")


def found_facts(console: Console, found: FoundFacts) -> None:
    """Facts that were found, best first."""
    for hit in found.hits:
        console.print(Text(f"{hit.score:.3f}  ", style="bold cyan") + _fact(hit), soft_wrap=True)
    if not found.hits:
        console.print("Nothing of it is known.")
    if found.not_yet_embedded:
        console.print(f"{found.not_yet_embedded} facts of this agent wait for their vectors.", style="dim")


def published(console: Console, done: Published) -> None:
    """What a message was given."""
    again = " (an earlier try had come through)" if done.repeated else ""
    console.print(f"Published at {done.position}{again}.", markup=False)


def messages(console: Console, found: Sequence[Message]) -> None:
    """Messages of a channel, a line each."""
    for one in found:
        again = f"  delivery {one.deliveries}" if one.deliveries and one.deliveries > 1 else ""
        console.print(
            Text.assemble(
                (one.position, "dim"), "  ", (_time(one.at), "green"), "  ", (one.sender, "blue"), "  ",
                (one.type or "-", "magenta"), "  ", _short(one.payload), (again, "yellow"),
            ),
            soft_wrap=True,
        )  # fmt: skip


def warn_missed(count: int) -> None:
    """Say that messages were removed before they were read."""
    errors().print(f"{count} messages were removed before they were read.", style="yellow", markup=False)


def channels(console: Console, found: Sequence[ChannelInfo]) -> None:
    """Channels, a line each."""
    table = Table("channel", "messages", "last position")
    for one in found:
        table.add_row(Text(one.channel), _count(one.length), one.position)
    console.print(table if found else "No channels.")


def status(console: Console, found: Status) -> None:
    """The whole memory at a glance."""
    table = Table.grid(padding=(0, 3))
    opened = sum(shard.open is True for shard in found.shards)
    rows = {
        "mode": found.mode or UNKNOWN,
        "lag": UNKNOWN if found.lag_seconds is None else f"{found.lag_seconds:.1f} s",
        "pending turns": _count(found.pending),
        "waiting for an embedding": _count(found.unembedded),
        "without one for good": _count(found.unembeddable),
        "embedding model": found.embedding_model or "none",
        "its successor": _progress(found.back_fill),
        "dead letters": _count(found.dead_letters),
        "unreadable documents": _count(found.quarantined),
        "sessions to distil": _count(found.undistilled),
        "distillations given up": _count(found.undistillable),
        "persistence": found.persistence or UNKNOWN,
        "shards open": f"{opened} of {len(found.shards)}" if found.shards else "",
        "not answering": ", ".join(found.degraded) or "none",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console.print(table)


def embedding_models(console: Console, found: Sequence[EmbeddingModel]) -> None:
    """Models of embeddings, a line each."""
    table = Table("id", "model", "dimensions", "recall", "new events", "back-fill")
    for one in found:
        left = "complete" if one.complete else f"{one.back_filled:,} of {one.total:,}" if one.kept else "-"
        kept = "embedded" if one.kept else "being deleted" if one.unwanted else "not embedded"
        table.add_row(
            str(one.id), Text(one.name), str(one.dimensions), "goes by it" if one.current else "-", kept, left
        )
    console.print(table if found else "No model of embeddings has been used yet.")


def dead_letters(console: Console, found: Sequence[DeadLetter]) -> None:
    """Dead letters, and why they are dead."""
    table = Table("agent", "id", "kind", "dead since", "reason", "what")
    for letter in found:
        table.add_row(
            Text(letter.agent), Text(letter.id), Text(letter.kind), _time(letter.dead_at), Text(letter.reason),
            Text(_short(letter.event)),
        )  # fmt: skip
    console.print(table if found else "No dead letters.")


def distillations(console: Console, found: Sequence[Distillation]) -> None:
    """Sessions that facts are to be drawn from."""
    table = Table("agent", "session", "asked for", "refusals", "given up", "why")
    for one in found:
        table.add_row(
            Text(one.agent), Text(one.session), _time(one.asked_at), _count(one.attempts),
            "yes" if one.given_up else "no", Text(one.refused or ""),
        )  # fmt: skip
    console.print(table if found else "No sessions.")


def _progress(found: BackFill | None) -> str:
    return "none" if found is None else f"{found.model}: {found.done:,} of {found.total:,} embedded"


def _line(event: Event) -> Text:
    said = event.content if event.content is not None else _short(event.payload)
    who = f"{event.type}/{event.role}" if event.role else event.type
    whose = Text(f"{event.agent}  ", "yellow") if isinstance(event, AgentEvent) else ""
    return Text.assemble(
        (_time(event.at), "green"), "  ", whose, (event.session or "-", "blue"), "  ", (who, "magenta"), "  ", said
    )


def _fact(fact: Fact) -> Text:
    until = f" to {_time(fact.believed_until)}" if fact.believed_until else ""
    return Text.assemble(
        (fact.id, "dim"), "  ", (_time(fact.believed_from) + until, "green"), "  ", (fact.key or "-", "blue"), "  ",
        (fact.topic, "magenta"), "  ", f"{fact.confidence:g}", "  ", fact.content,
    )  # fmt: skip


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else to_json(value)
    return text if len(text) <= LONGEST_PAYLOAD else text[: LONGEST_PAYLOAD - 1] + "…"
