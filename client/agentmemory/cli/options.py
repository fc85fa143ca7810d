"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from agentmemory.client import DEFAULT_URL, URL_VARIABLE, AgentMemory
from agentmemory.retries import Retries

CLIENT_NAME = "agentmemory-cli"
PATIENCE = Retries(budget=3.0)


def _address(url: str | None) -> str | None:
    try:
        return AgentMemory(url).url
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def agent_name(name: str) -> str:
    """A name that an agent can have."""
    try:
        return AgentMemory("http://127.0.0.1").agent(name).name
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def moment(text: str | None) -> str | None:
    """An RFC 3339 timestamp from what a person writes; in UTC unless it names a zone."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date; write it like 2026-01-12 or 2026-01-12T09:30:00Z.") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def json_of(kind: type[Any], example: str) -> Callable[[str | None], Any]:
    """A parser of options that hold JSON of one kind."""

    def parse(text: str | None) -> Any:
        if text is None or not isinstance(text, str):
            return text
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{error}; it looks like {example}.") from None

    return parse


class Reached(StrEnum):
    """How far a write has come."""

    durable = "durable"
    searchable = "searchable"


Url = Annotated[
    str | None,
    typer.Option("--url", envvar=URL_VARIABLE, callback=_address, help="The sidecar.", show_default=DEFAULT_URL),
]
AgentName = Annotated[
    str, typer.Option("--agent", "-a", envvar="AGENTMEMORY_AGENT", callback=agent_name, help="Whose memory.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for a program to read.")]
Session = Annotated[str | None, typer.Option("--session", "-s", help="Only this session.")]
Since = Annotated[
    str | None, typer.Option(callback=moment, metavar="DATE", help="Only what happened at or after this (UTC).")
]
Until = Annotated[
    str | None, typer.Option(callback=moment, metavar="DATE", help="Only what happened before this (UTC).")
]
Types = Annotated[list[str] | None, typer.Option("--type", "-t", help="Only this type of event; may be repeated.")]


def connect(url: str | None) -> AgentMemory:
    """A client under the tool's own name."""
    return AgentMemory(url, client_name=CLIENT_NAME, retries=PATIENCE)
