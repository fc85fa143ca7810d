"""Channels: messages from agents to agents."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct, field

from agentmemory.calls import given
from agentmemory.encoding import decode, encode
from agentmemory.errors import Unavailable, UnexpectedAnswer, Unreachable, problem_from
from agentmemory.transport import Answer, Request, Transport

BEGINNING = "-"
NOW = "$"
LONGEST_WAIT = 30.0  # seconds that the sidecar waits in one request
REST = 1.0  # seconds after a stream that a sidecar ended
SILENCE = 45.0  # seconds without a heartbeat after which a stream is taken up anew


class Message(Struct, kw_only=True):
    """A message of a channel.

    `deliveries` counts those to consumers of a group, None outside of one. `missed` says how many messages retention
    removed just before this one, that a follower did not come to see.
    """

    position: str
    sender: str = field(name="from")
    at: datetime
    type: str | None = None
    payload: Any = None
    metadata: dict[str, Any] | None = None
    deliveries: int | None = None
    missed: int = 0


class Published(Struct, kw_only=True):
    """Where a message stands. `repeated`: an earlier try with the same key had put it there."""

    position: str
    repeated: bool = False


class MessagePage(Struct, kw_only=True):
    """Messages in order; reading goes on after `position`, None for a group.

    `trimmed` says that retention removed `missed` messages before the reader came to them.
    """

    messages: list[Message]
    position: str | None = None
    trimmed: bool = False
    missed: int = 0


class ChannelInfo(Struct, kw_only=True):
    """A channel: how many messages it keeps, and the last position that it gave."""

    channel: str
    length: int
    position: str


class ChannelPage(Struct, kw_only=True):
    """Channels by name; `cursor` continues them and is None at the end."""

    channels: list[ChannelInfo]
    cursor: str | None = None


class Channel:
    """Publishes and reads one channel. Made by `AgentMemory.channel`.

    Every call raises the errors of `agentmemory.errors`.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        if not name[:1].isalnum():
            raise ValueError(f"{name!r} cannot name a channel: a name begins with a letter or a digit.")
        self.name = name
        self._transport = transport
        self._base = f"/v1/channels/{quote(name, safe='')}"

    async def publish(
        self,
        payload: Any,
        *,
        sender: str,
        type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Publish a message of the agent `sender`; with one key, once within an hour.

        Raises:
            KeyReused: the key was used for another message.
            TooLarge: payload and metadata have more than 256 KiB.
        """
        body = {"payload": payload} | given({"from": sender, "type": type, "metadata": metadata})
        answer = await self._send("POST", "/messages", body, key=idempotency_key or uuid.uuid4().hex)
        return answer.decode(Published)

    async def read(self, *, after: str = BEGINNING, limit: int = 100, wait: float = 0.0) -> MessagePage:
        """Messages after a position: BEGINNING (`-`) from the first that is kept, NOW (`$`) what comes.

        `wait` is for how many seconds at most, 30 of them, when there is none yet.

        Raises:
            PositionLost: Redis lost what stood there; begin anew.
        """
        return await self._read({"after": after, "limit": limit}, wait)

    async def take(
        self,
        group: str,
        consumer: str,
        *,
        limit: int = 10,
        wait: float = 0.0,
        redeliver_after: float | None = None,
        begin: str = BEGINNING,
    ) -> MessagePage:
        """Messages for one consumer of a group: each goes to one, who has to acknowledge it.

        After `redeliver_after` seconds (60 unless given) it goes to another one. A group that is new begins at `begin`.
        """
        query = {
            "group": group, "consumer": consumer, "limit": limit, "redeliver_after": redeliver_after, "after": begin,
        }  # fmt: skip
        return await self._read(given(query), wait)

    async def acknowledge(self, group: str, messages: Iterable[Message | str]) -> int:
        """Have these messages, or positions, never delivered to the group again; how many of them were still open."""
        positions = [one.position if isinstance(one, Message) else one for one in messages]
        answer = await self._send("POST", f"{_group(group)}/ack", {"positions": positions})
        return answer.decode(dict[str, int])["acknowledged"]

    async def drop_group(self, group: str) -> bool:
        """End a group, with what it has not acknowledged; whether there was one."""
        return (await self._send("DELETE", _group(group))).decode(dict[str, bool])["deleted"]

    async def follow(self, *, after: str = NOW) -> AsyncGenerator[Message, None]:
        """Every message after a position as it comes, for ever; taken up again where a connection is lost.

        Raises:
            PositionLost: Redis lost the message that was read last; begin anew.
            Unreachable, Unavailable: the sidecar or Redis stayed away longer than retries allow.
        """
        away_since, failures = 0.0, 0
        while True:
            rest = REST
            try:
                async with aclosing(self._stream(after)) as stream:
                    async for position, message in stream:
                        after, failures = position, 0
                        if message is not None:
                            yield message
            except (Unreachable, Unavailable) as error:
                asked = error.retry_after if isinstance(error, Unavailable) else None
                failures += 1
                away_since = away_since if failures > 1 else time.monotonic()
                pause = self._transport.retries.pause(failures, time.monotonic() - away_since, asked)
                if pause is None:
                    raise
                rest = pause
            await asyncio.sleep(rest)

    async def _stream(self, after: str) -> AsyncGenerator[tuple[str, Message | None], None]:
        """Where to go on from, and the message that stands there; None where the stream only says where it begins."""
        request = Request(
            method="GET",
            path=f"{self._base}/messages?{urlencode({'after': after})}",
            headers={"Accept": "text/event-stream"},
        )
        missed = 0
        async with aclosing(self._transport.follow(request, silence=SILENCE)) as lines:
            async for name, position, data in _events(lines):
                if name == "problem":
                    raise problem_from(*_status(data)) or UnexpectedAnswer("The stream ended with what is no problem.")
                if name == "trimmed":
                    missed += _decode(data, dict[str, int]).get("missed", 0)
                elif not name and not data:
                    yield position, None
                elif not name:
                    yield position, msgspec.structs.replace(_decode(data, Message), missed=missed)
                    missed = 0

    async def _read(self, query: Mapping[str, Any], wait: float) -> MessagePage:
        deadline = time.monotonic() + wait
        while True:
            left = max(0.0, min(LONGEST_WAIT, deadline - time.monotonic()))
            path = f"{self._base}/messages?{urlencode({**query, 'wait': f'{left:.3f}'})}"
            request = Request(method="GET", path=path, timeout=left + self._transport.timeout)
            page = (await self._transport.send(request)).decode(MessagePage)
            if page.messages or page.trimmed or time.monotonic() >= deadline:
                return page
            if page.position is not None:
                query = {**query, "after": page.position}

    async def _send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else encode(body)
        return await self._transport.send(
            Request(method=method, path=self._base + path, body=data, headers=headers, key=key)
        )


def _group(name: str) -> str:
    return f"/groups/{quote(name, safe='').replace('.', '%2E')}"


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str, bytes]]:
    """Name, id and data of each event of a stream; comments and other fields are passed over."""
    name, id, data = "", "", list[str]()
    async for line in lines:
        if not line:
            if data or id:
                yield name, id, "\n".join(data).encode()
            name, id, data = "", "", []
            continue
        label, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if label == "event":
            name = value
        elif label == "id":
            id = value
        elif label == "data":
            data.append(value)


def _status(data: bytes) -> tuple[int, bytes]:
    return int(_decode(data, dict[str, Any]).get("status", 500)), data


def _decode(data: bytes, kind: Any) -> Any:
    try:
        return decode(data, kind)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(f"The sidecar's stream is not what this client knows: {error}.") from None
