"""Server-sent events: the messages of a channel to one follower, until one of the two ends it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import hdrs, web
from msgspec import Struct

from agentmemory_engine.channels import LOOK_FOR_CALLER, MessagePage
from agentmemory_engine.followers import Followers
from agentmemory_sidecar.guard import CURRENT_ID, REQUEST_ID
from agentmemory_sidecar.operations import EVENT_STREAM
from agentmemory_sidecar.problems import problem_of

HEARTBEAT = 15.0
"""Seconds without a message after which a comment is sent, so that both sides see whether the other is there."""
_RETRY = b"retry: 1000\n\n"
_HEADERS = {hdrs.CONTENT_TYPE: EVENT_STREAM, hdrs.CACHE_CONTROL: "no-store"}

Ask = Callable[[MessagePage], Awaitable[MessagePage]]
Format = Callable[[MessagePage], Iterator[bytes]]


class Missed(Struct):
    """Retention removed so many messages, at least where Redis lost data, before the follower came to them."""

    missed: int


def format_event(data: bytes, *, name: str = "", id: str = "") -> bytes:
    """One event; line breaks in the JSON `data`, which are never within its strings, stay line breaks."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    head = (f"event: {name}\n" if name else "") + (f"id: {id}\n" if id else "")
    return head.encode() + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


async def follow(
    request: web.Request, followers: Followers, channel: str, page: MessagePage, ask: Ask, format: Format
) -> web.StreamResponse:
    """Send what is in `page`, then what `ask` answers after it; `followers` holds a place for this request.

    Whatever goes wrong from here on is an event `problem`, the last one.
    """
    response = web.StreamResponse(headers=_HEADERS | {REQUEST_ID: CURRENT_ID.get()})
    await response.prepare(request)
    try:
        await response.write(_RETRY)
        if not page.messages:
            # Who is cut off before the first message would not know where to go on.
            await response.write(f"id: {page.position}\n\n".encode())
        await _send(request, response, followers, channel, page, ask, format)
    except ConnectionError:
        pass
    except Exception as error:
        document = problem_of(error, request, CURRENT_ID.get()).body
        assert isinstance(document, bytes)
        if not is_gone(request):
            await response.write(format_event(document, name="problem"))
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, followers: Followers, channel: str, page: MessagePage,
    ask: Ask, format: Format,
) -> None:  # fmt: skip
    sent = time.monotonic()
    while True:
        for event in format(page):
            await response.write(event)
            sent = time.monotonic()
        if time.monotonic() - sent >= HEARTBEAT:
            await response.write(b":\n\n")
            sent = time.monotonic()
        if not page.messages:
            await followers.wait(channel, page.last, LOOK_FOR_CALLER)
        if followers.stopping or is_gone(request):
            return
        page = await ask(page)


def is_gone(request: web.Request) -> bool:
    """Whether the client has hung up."""
    return request.transport is None or request.transport.is_closing()
