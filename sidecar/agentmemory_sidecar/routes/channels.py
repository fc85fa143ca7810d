"""Channels: published, read, followed, shared out by groups."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import hdrs, web
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from agentmemory_engine.channels import BEGINNING, Channels, Group, MessagePage, NewMessage
from agentmemory_engine.channels import Message as StoredMessage
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.turns import decode
from agentmemory_sidecar.models import AgentId, Deleted, PositionText
from agentmemory_sidecar.operations import EVENT_STREAM, JSON, Operation
from agentmemory_sidecar.requests import (
    AGENTS,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    MEMORY,
    body_of,
    key_of,
    no_params,
    params_of,
)
from agentmemory_sidecar.responses import answer
from agentmemory_sidecar.streams import Missed, follow, format_event, is_gone

PATH = "/v1/channels/{channel}/messages"
GROUP = "/v1/channels/{channel}/groups/{group}"
Name = AgentId


class Published(Struct, kw_only=True):
    """The message stands here. `repeated`: an earlier request with this key put it there."""

    position: PositionText
    repeated: bool


class Message(Struct, kw_only=True, omit_defaults=True):
    """A message. `deliveries` counts those to consumers of the group."""

    position: PositionText
    sender: str = field(name="from")
    at: datetime
    type: str | None = None
    payload: Raw
    metadata: Raw | UnsetType = UNSET
    deliveries: int | None = None


class MessageList(Struct, kw_only=True):
    """In order. Read on after `position`, which a group, that knows by itself, does not have.

    `trimmed`: retention removed `missed` messages before the reader came to them; exact unless Redis lost data.
    """

    messages: list[Message]
    position: PositionText | None
    trimmed: bool
    missed: int


class ReadParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """Where to begin, how much, how long to wait; and for which group."""

    after: Annotated[
        str, Meta(description="a position; `-`: from the first that is kept; `$`: what comes. Where a new group begins")
    ] = BEGINNING
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    wait: Annotated[float, Meta(ge=0, le=30, description="seconds, when there is nothing yet")] = 0.0
    group: Name | None = None
    consumer: Name | None = None
    redeliver_after: (
        Annotated[float, Meta(ge=1, le=86_400, description="seconds without an acknowledgement; 60 unless given")]
        | None
    ) = None


class AckRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a consumer is done with."""

    positions: Annotated[list[PositionText], Meta(min_length=1, max_length=1000)]


class Acknowledged(Struct):
    """How many were delivered to the group and not acknowledged before."""

    acknowledged: int


class Channel(Struct, kw_only=True):
    """How many messages it keeps, and the last position that it gave."""

    channel: str
    length: int
    position: PositionText


class ChannelList(Struct, kw_only=True):
    """By name. `cursor` continues it; null at the end."""

    channels: list[Channel]
    cursor: str | None


class ListParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """A page of them."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


async def publish(request: web.Request) -> web.Response:
    """201 for a message that is new, 200 for one that was there."""
    no_params(request)
    message = decode(await body_of(request), NewMessage)
    request.app[AGENTS].check(message.sender)
    channels = request.app[MEMORY].channels
    position, repeated = await channels.publish(request.match_info["channel"], message, key=key_of(request))
    return answer(Published(position=str(position), repeated=repeated), status=200 if repeated else 201)


async def read(request: web.Request) -> web.StreamResponse:
    """A page of messages, or a stream of them."""
    channels, channel = request.app[MEMORY].channels, request.match_info["channel"]
    params = params_of(request, ReadParams)
    group = _group(params)
    if EVENT_STREAM in request.headers.get(hdrs.ACCEPT, ""):
        return await _follow(request, channels, channel, params)
    gone = partial(is_gone, request)
    if group is not None:
        page = await channels.take(channel, group, limit=params.limit, wait=params.wait, gone=gone)
    else:
        page = await channels.read(channel, after=params.after, limit=params.limit, wait=params.wait, gone=gone)
    return answer(
        MessageList(
            messages=[_message(one) for one in page.messages],
            position=None if page.position is None else str(page.position),
            trimmed=page.missed > 0,
            missed=page.missed,
        )
    )


async def _follow(request: web.Request, channels: Channels, channel: str, params: ReadParams) -> web.StreamResponse:
    if params.group is not None:
        raise InvalidInput("A group reads pages with `wait`, so that no consumer is given more than it asked for.")
    if params.wait:
        raise InvalidInput("A stream of events takes no `wait`.")
    after = request.headers.get(LAST_EVENT_ID) or params.after

    async def ask(page: MessagePage) -> MessagePage:
        return await channels.read(channel, after=str(page.position), limit=params.limit)

    async with channels.followers.place():
        page = await channels.read(channel, after=after, limit=params.limit)
        return await follow(request, channels.followers, channel, page, ask, _events)


def _events(page: MessagePage) -> Iterator[bytes]:
    if page.missed:
        yield format_event(msgspec.json.encode(Missed(page.missed)), name="trimmed")
    for one in page.messages:
        yield format_event(msgspec.json.encode(_message(one)), id=str(one.position))


def _group(params: ReadParams) -> Group | None:
    if params.group is None and params.consumer is None:
        if params.redeliver_after is not None:
            raise InvalidInput("`redeliver_after` goes with `group` and `consumer`.")
        return None
    if params.group is None or params.consumer is None:
        raise InvalidInput("`group` and `consumer` go together.")
    redeliver_after = 60.0 if params.redeliver_after is None else params.redeliver_after
    return Group(name=params.group, consumer=params.consumer, redeliver_after=redeliver_after, begin=params.after)


def _message(message: StoredMessage) -> Message:
    return Message(
        position=str(message.position),
        sender=message.sender,
        at=message.at,
        type=message.type,
        payload=Raw(message.payload),
        metadata=UNSET if message.metadata is None else Raw(message.metadata),
        deliveries=message.deliveries,
    )


async def acknowledge(request: web.Request) -> web.Response:
    """Never deliver these to the group again."""
    no_params(request)
    done = decode(await body_of(request), AckRequest)
    names = request.match_info
    count = await request.app[MEMORY].channels.acknowledge(names["channel"], names["group"], done.positions)
    return answer(Acknowledged(count))


async def drop_group(request: web.Request) -> web.Response:
    """End a group; whether there was one."""
    no_params(request)
    names = request.match_info
    return answer(Deleted(await request.app[MEMORY].channels.drop_group(names["channel"], names["group"])))


async def list_channels(request: web.Request) -> web.Response:
    """A page of them."""
    params = params_of(request, ListParams)
    found = await request.app[MEMORY].channels.page(after=params.cursor or "", limit=params.limit + 1)
    page = [
        Channel(channel=one.channel, length=one.length, position=str(one.position)) for one in found[: params.limit]
    ]
    return answer(ChannelList(channels=page, cursor=page[-1].channel if len(found) > params.limit else None))


def _operation(method: str, path: str, handler: Any, name: str, summary: str, **more: Any) -> Operation:
    return Operation(method=method, path=path, handler=handler, name=name, summary=summary, tag="Channels", **more)


OPERATIONS = (
    _operation(
        "GET", "/v1/channels", list_channels, "listChannels", "The channels, with their length and last position",
        params=ListParams, answers={200: (ChannelList,)}, problems=(422, 501, 503),
    ),
    _operation(
        "POST", PATH, publish, "publishMessage", "Publish a message of an agent",
        body={JSON: NewMessage}, headers=(IDEMPOTENCY_KEY,), answers={201: (Published,), 200: (Published,)},
        problems=(413, 422, 501, 503),
    ),
    _operation(
        "GET", PATH, read, "readMessages",
        "Messages after a position, or for a consumer of a group; or all that come, as server-sent events",
        params=ReadParams, headers=(LAST_EVENT_ID,), answers={200: (MessageList,)}, streams=True,
        problems=(410, 422, 501, 503),
    ),
    _operation(
        "POST", GROUP + "/ack", acknowledge, "acknowledgeMessages", "Have messages never delivered to the group again",
        body={JSON: AckRequest}, answers={200: (Acknowledged,)}, problems=(413, 422, 501, 503),
    ),
    _operation(
        "DELETE", GROUP, drop_group, "deleteGroup", "End a group, with what it has not acknowledged",
        answers={200: (Deleted,)}, problems=(422, 501, 503),
    ),
)  # fmt: skip
