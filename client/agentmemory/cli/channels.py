"""Commands on channels: messages from agents to agents."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from agentmemory.channels import BEGINNING, NOW, Message, MessagePage
from agentmemory.cli import show
from agentmemory.cli.faults import run
from agentmemory.cli.options import AgentName, AsJson, Url, connect, json_of
from agentmemory.client import AgentMemory

OBJECT = '\'{"task": "q2"}\''


def _channel(name: str) -> str:
    try:
        return AgentMemory("http://127.0.0.1").channel(name).name
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL", callback=_channel, help="Its name.")]
After = Annotated[
    str, typer.Option("--after", metavar="POSITION", help="A position; `-`: from the first that is kept; `$`: now.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many messages.")]

app = typer.Typer(no_args_is_help=True, help="Messages from agents to agents.", rich_markup_mode=None)


def _payload(text: str) -> Any:
    """JSON, or the text itself where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text


@app.command()
def publish(
    agent: AgentName,
    channel: ChannelName,
    payload: Annotated[str, typer.Argument(help="JSON; what is none is sent as a text.")],
    type: Annotated[str | None, typer.Option("--type", "-t", help="What kind of message it is.")] = None,
    metadata: Annotated[Any, typer.Option(parser=json_of(dict, OBJECT), metavar="JSON", help="An object.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same message with the same key is published once.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Publish a message of an agent.

    Example:

      agentmemory channel publish --agent research-1 findings '{"task": "q2", "growth": 0.04}' --type result
    """

    async def send() -> None:
        async with connect(url) as memory:
            done = await memory.channel(channel).publish(
                _payload(payload), sender=agent, type=type, metadata=metadata, idempotency_key=key
            )
        if as_json:
            show.machine(done)
        else:
            show.published(Console(), done)

    run(send())


@app.command()
def read(
    channel: ChannelName,
    after: After = BEGINNING,
    limit: Limit = 100,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait when there is nothing yet.")] = 0.0,
    group: Annotated[str | None, typer.Option(help="Read for this group, which begins at --after.")] = None,
    consumer: Annotated[str, typer.Option(help="Who reads for the group.")] = "cli",
    ack: Annotated[bool, typer.Option("--ack", help="Acknowledge what is shown, for the group.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Messages after a position, or for a group. With --json: one a line."""
    if ack and group is None:
        raise typer.BadParameter("--ack goes with --group.")

    async def ask() -> None:
        async with connect(url) as memory:
            place = memory.channel(channel)
            if group is None:
                page = await place.read(after=after, limit=limit, wait=wait)
            else:
                page = await place.take(group, consumer, limit=limit, wait=wait, begin=after)
            _print(page, as_json)
            if group is not None and ack and page.messages:
                await place.acknowledge(group, page.messages)

    run(ask())


@app.command()
def follow(
    channel: ChannelName,
    after: After = NOW,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many messages.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Every message as it comes, until interrupted. With --json: one a line."""

    async def watch() -> None:
        async with connect(url) as memory, contextlib.aclosing(memory.channel(channel).follow(after=after)) as messages:
            async for message in _first(messages, count):
                if message.missed:
                    show.warn_missed(message.missed)
                _print(MessagePage(messages=[message]), as_json)

    run(watch())


async def _first(messages: AsyncIterator[Message], count: int | None) -> AsyncIterator[Message]:
    async for message in messages:
        yield message
        count = None if count is None else count - 1
        if count == 0:
            return


@app.command("list")
def list_channels(url: Url = None, as_json: AsJson = False) -> None:
    """The channels by name. With --json: one a line."""

    async def ask() -> None:
        async with connect(url) as memory:
            found = [channel async for channel in memory.channels()]
        if as_json:
            for channel in found:
                show.machine(channel)
        else:
            show.channels(Console(), found)

    run(ask())


def _print(page: MessagePage, as_json: bool) -> None:
    if page.trimmed:
        show.warn_missed(page.missed)
    if as_json:
        for message in page.messages:
            show.machine(message)
    else:
        show.messages(Console(), page.messages)
