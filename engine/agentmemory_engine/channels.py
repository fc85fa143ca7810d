"""Channels: messages from agents to agents, in Redis Streams; kept for a while, replayable, shared out by groups."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any
from uuid import uuid4

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from agentmemory_engine.connection import Connection
from agentmemory_engine.errors import InvalidInput, KeyReused, PositionLost, ShardClosed, TooLarge, Unavailable
from agentmemory_engine.followers import Followers
from agentmemory_engine.journal import patiently, run_id_of
from agentmemory_engine.keys import A_NAME, check_agent, check_channel, digest_key, is_name
from agentmemory_engine.positions import START, Entry, Position
from agentmemory_engine.redis import Redis, check_policy
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import AN_OBJECT

BEGINNING = "-"
NOW = "$"
MAX_MESSAGE = 256 << 10
"""Bytes of payload and metadata together."""
_PAGE_BYTES = 4 << 20
_MAX_GROUPS = 64
_MAX_CONSUMERS = 1000
_CONSUMER_STAYS = 600.0
"""Seconds for which a consumer that holds nothing is remembered."""
LOOK_FOR_CALLER = 1.0
"""Seconds between two looks whether who waits is still there."""
Gone = Callable[[], bool]
"""Whether nobody is there any more to be answered."""
LOOK_FOR_IDLE = 1.0
"""Seconds between two looks for what a consumer did not acknowledge in time."""
_CLOSED = "Redis has restarted or lost data, and the channel's shard is being opened for its new run; try again."


class NewMessage(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is published. `from` is the agent that speaks."""

    sender: Annotated[str, Meta(description="the agent that speaks", extra_json_schema=A_NAME)] = field(name="from")
    payload: Annotated[Raw, Meta(description="any JSON; kept as it was sent")]
    type: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    metadata: Annotated[Raw | UnsetType, Meta(extra_json_schema=AN_OBJECT)] = UNSET


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as it is kept; `payload` and `metadata` are JSON. `deliveries` counts those to consumers of a group."""

    position: Position
    sender: str
    at: datetime
    payload: bytes
    type: str | None
    metadata: bytes | None
    deliveries: int | None = None


@dataclass(frozen=True, kw_only=True)
class MessagePage:
    """Messages in order. Reading goes on after `position`; None for a group, which knows it by itself.

    So many were removed by retention before the reader came to them: `missed` is exact unless Redis lost data or
    forgot the channel in between, and then at least as many.
    """

    messages: list[Message]
    position: Position | None
    missed: int
    last: Entry | None


@dataclass(frozen=True, kw_only=True)
class ChannelInfo:
    """A channel: how many messages it keeps, and the last position that was given."""

    channel: str
    length: int
    position: Position


@dataclass(frozen=True, kw_only=True)
class Group:
    """Who reads for a group: each message goes to one consumer, and to another one when it is not acknowledged.

    `redeliver_after` is in seconds. `begin` is where a group begins that is not there yet.
    """

    name: str
    consumer: str
    redeliver_after: float = 60.0
    begin: str = BEGINNING


def never() -> bool:
    """Somebody is always there."""
    return False


class Channels:
    """Publishes and reads. Every call raises InvalidChannel for a name that breaks the rule, and StoreUnavailable."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._keys = settings.keys
        self.followers = Followers(self._last_entry, settings.followers)

    async def publish(self, channel: str, message: NewMessage, *, key: str | None = None) -> tuple[Position, bool]:
        """Append a message; answer its position, and whether an earlier publication with this key put it there.

        Raises InvalidInput, InvalidAgentId, TooLarge, KeyReused, JournalFull, ShardClosed, StoreUnavailable; after the
        last one the message may be there all the same, and publishing it again with its key settles that.
        """
        check_channel(channel)
        check_agent(message.sender)
        metadata = b"" if message.metadata is UNSET else bytes(message.metadata)
        payload = bytes(message.payload)
        if metadata and not metadata.lstrip().startswith(b"{"):
            raise InvalidInput("`metadata` is not a JSON object.")
        if len(metadata) + len(payload) > MAX_MESSAGE:
            raise TooLarge(f"Payload and metadata are over {MAX_MESSAGE} bytes; send a reference to what is large.")
        fields: list[str | bytes] = [message.sender, message.type or "", metadata, payload]
        # Keys are each sender's own: two may well count from 1.
        digest = digest_key(f"{message.sender} {key}" if key else uuid4().hex)
        return await patiently(lambda: self._publish(channel, fields, digest))

    async def _publish(self, channel: str, fields: list[str | bytes], digest: bytes) -> tuple[Position, bool]:
        settings, shard = self._settings, self._settings.shard_of(channel)
        connection = await self._at(channel)
        info = connection.info
        assert info is not None
        check_policy(info)
        window = min(settings.channel_key_window, settings.channel_age)
        reply = await self._redis.run_on(
            connection,
            load_script("channel_publish"),
            [*self._of(channel), self._keys.channel_key(shard, channel, digest)],
            [info.run_id, channel, _fingerprint(fields), int(window * 1000), *fields, settings.channel_messages,
             int(settings.channel_age * 1000), settings.channel_bytes],
        )  # fmt: skip
        if reply[0] == b"closed":
            raise ShardClosed(_CLOSED)
        if reply[0] == b"reused":
            raise KeyReused("This Idempotency-Key was used for another message; use a new key for a new message.")
        entry = Entry.parse(reply[1])
        if reply[0] == b"published":
            self.followers.tell(channel, entry)
        if reply[2]:
            with contextlib.suppress(Unavailable):
                await self._forget(reply[2].decode())
        return Position(shard, entry), reply[0] == b"repeated"

    async def _forget(self, channel: str) -> None:
        connection = await self._at(channel)
        await self._redis.run_on(
            connection, load_script("channel_forget"), self._of(channel), [run_id_of(connection), channel]
        )

    async def read(
        self, channel: str, *, after: str = BEGINNING, limit: int = 100, wait: float = 0.0, gone: Gone = never
    ) -> MessagePage:
        """Messages after a position; BEGINNING: the first kept, NOW: only what comes.

        With none there, waits up to so many seconds, and no longer than somebody is there to be answered. Raises
        InvalidPosition, PositionLost, TooManyFollowers, ShardClosed.
        """
        self.check_after(channel, after)
        page = await patiently(lambda: self._read(channel, after, limit))
        return await self._wait_for_news(
            channel, page, lambda page: self._read(channel, str(page.position), limit), wait, gone
        )

    async def _wait_for_news(
        self, channel: str, page: MessagePage, ask: Callable[[MessagePage], Awaitable[MessagePage]], wait: float,
        gone: Gone, pause: float = math.inf,
    ) -> MessagePage:  # fmt: skip
        """The first page with something in it, or the one after `wait` seconds; asked for every `pause` at least.

        What is taken for somebody who has gone would be kept from others until it is delivered again.
        """
        if _is_news(page) or wait <= 0:
            return page
        deadline = time.monotonic() + wait
        async with self.followers.place():
            while not _is_news(page) and not self.followers.stopping and (left := deadline - time.monotonic()) > 0:
                await self.followers.wait(channel, page.last, min(left, pause, LOOK_FOR_CALLER))
                if gone():
                    break
                page = await patiently(partial(ask, page))
        return page

    async def _read(self, channel: str, after: str, limit: int) -> MessagePage:
        shard = self._settings.shard_of(channel)
        connection = await self._at(channel)
        state, _, stream, about = self._of(channel)
        start = after if after in (BEGINNING, NOW) else str(Position.parse(after).entry)
        args: list[bytes | str | int] = [run_id_of(connection), start, limit, _PAGE_BYTES]
        reply = await self._redis.run_on(connection, load_script("channel_read"), [state, stream, about], args)
        if reply[0] == b"closed":
            raise ShardClosed(_CLOSED)
        if reply[0] == b"lost":
            raise PositionLost(
                f"The channel {channel!r} has no position {after}: Redis lost what stood there, or the channel was "
                "forgotten and began anew. Read on from the first message that is kept, or from now."
            )
        return MessagePage(
            messages=[_message(shard, raw) for raw in reply[4]],
            position=None if reply[1] in (b"-", b"$") else Position(shard, Entry.parse(reply[1])),
            missed=reply[3],
            last=Entry.parse(reply[2]) if reply[2] else None,
        )

    def check_after(self, channel: str, after: str) -> None:
        """Raises InvalidChannel, InvalidPosition, and InvalidInput for a position of another channel."""
        check_channel(channel)
        if after in (BEGINNING, NOW):
            return
        if Position.parse(after).shard != self._settings.shard_of(channel):
            raise InvalidInput(f"{after} is not a position of the channel {channel!r}; use one that it gave.")

    async def take(
        self, channel: str, group: Group, *, limit: int = 100, wait: float = 0.0, gone: Gone = never
    ) -> MessagePage:
        """Messages for one consumer of a group, who acknowledges each; the group is made where it is not there yet.

        First come those that were delivered and not acknowledged for `redeliver_after` seconds. Raises InvalidInput,
        InvalidPosition, PositionLost, TooManyFollowers, ShardClosed.
        """
        self.check_after(channel, group.begin)
        check_name("group", group.name)
        check_name("consumer", group.consumer)
        page = await patiently(lambda: self._take(channel, group, limit))
        return await self._wait_for_news(
            channel, page, lambda _: self._take(channel, group, limit), wait, gone, pause=LOOK_FOR_IDLE
        )

    async def _take(self, channel: str, group: Group, limit: int) -> MessagePage:
        forgotten = 0
        reply = await self._run_take(channel, group, "", limit)
        if reply[0] == b"absent":
            begin, forgotten = await self._beginning(channel, group.begin)
            reply = await self._run_take(channel, group, begin, limit)
        if reply[0] == b"closed":
            raise ShardClosed(_CLOSED)
        if reply[0] == b"full":
            most = _MAX_GROUPS if reply[1] == b"groups" else _MAX_CONSUMERS
            raise InvalidInput(f"{most} {reply[1].decode()} are all there can be; use one that is there, or end one.")
        shard = self._settings.shard_of(channel)
        messages = [_message(shard, raw, times) for raw, times in zip(reply[3], reply[4], strict=True)]
        return MessagePage(messages=messages, position=None, missed=reply[2] + forgotten, last=Entry.parse(reply[1]))

    async def _beginning(self, channel: str, begin: str) -> tuple[str, int]:
        """Where a new group begins, and how many messages past that went with a channel that is forgotten."""
        if begin in (BEGINNING, NOW):
            return begin, 0
        page = await self._read(channel, begin, 0)
        assert page.position is not None
        return str(page.position.entry), page.missed if page.position.entry == START else 0

    async def _run_take(self, channel: str, group: Group, begin: str, limit: int) -> Any:
        connection = await self._at(channel)
        args: list[bytes | str | int] = [
            run_id_of(connection), channel, group.name, group.consumer, begin, limit, _PAGE_BYTES,
            int(group.redeliver_after * 1000), int(self._settings.channel_age * 1000), _MAX_GROUPS, _MAX_CONSUMERS,
            int(_CONSUMER_STAYS * 1000),
        ]  # fmt: skip
        return await self._redis.run_on(connection, load_script("channel_take"), self._of(channel), args)

    async def acknowledge(self, channel: str, group: str, positions: Sequence[str]) -> int:
        """Have these messages never delivered to this group again; answer how many were delivered and not acknowledged
        before. Harmless when repeated. Raises InvalidPosition, InvalidInput.
        """
        check_name("group", group)
        for position in positions:
            if position in (BEGINNING, NOW):
                raise InvalidInput("What is acknowledged are positions of messages.")
            self.check_after(channel, position)
        stream = self._of(channel)[2]
        entries = [str(Position.parse(position).entry) for position in positions]
        return int(await patiently(lambda: self._redis.execute("XACK", stream, group, *entries)))

    async def drop_group(self, channel: str, group: str) -> bool:
        """End a group, with what it has not acknowledged; answer whether there was one."""
        check_channel(channel)
        check_name("group", group)
        _, _, stream, about = self._of(channel)
        return bool(await self._redis.run(load_script("channel_drop_group"), [stream, about], [group]))

    async def page(self, *, after: str = "", limit: int = 100) -> list[ChannelInfo]:
        """The channels by name, from the first past `after`."""
        ask = self._redis.execute
        shards = range(self._settings.shards)
        now = int(time.time() * 1000)
        found = await asyncio.gather(
            *(ask("ZRANGEBYSCORE", self._keys.channels(shard), now, "+inf") for shard in shards)
        )
        names = sorted(name.decode() for several in found for name in several)
        page = [name for name in names if name > after][:limit]
        lengths = await asyncio.gather(*(ask("XLEN", self._of(name)[2]) for name in page))
        entries = await asyncio.gather(*(self._last_entry(name) for name in page))
        return [
            ChannelInfo(channel=name, length=length, position=Position(self._shard(name), entry))
            for name, length, entry in zip(page, lengths, entries, strict=True)
            if entry is not None
        ]

    async def _last_entry(self, channel: str) -> Entry | None:
        opening, number = await self._redis.execute("HMGET", self._of(channel)[3], "opening", "number")
        return None if opening is None or number is None else Entry(int(opening), int(number))

    async def _at(self, channel: str) -> Connection:
        return await self._redis.connection(self._of(channel)[0])

    async def close(self) -> None:
        """End all waiting."""
        await self.followers.close()

    def _shard(self, channel: str) -> int:
        return self._settings.shard_of(channel)

    def _of(self, channel: str) -> list[str]:
        """State of the shard, its channels, the stream, the channel's state."""
        keys, shard = self._keys, self._settings.shard_of(channel)
        return [
            keys.state(shard), keys.channels(shard), keys.channel(shard, channel), keys.channel_state(shard, channel),
        ]  # fmt: skip


def check_name(what: str, name: str) -> None:
    """Raises InvalidInput unless this can name a group or a consumer."""
    if not is_name(name):
        raise InvalidInput(f"{name[:64]!r} cannot name a {what}; its name keeps to the rule of agent ids.")


def _fingerprint(fields: Sequence[str | bytes]) -> str:
    digest = blake2b(digest_size=8)
    for one in fields:
        part = one.encode() if isinstance(one, str) else one
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _is_news(page: MessagePage) -> bool:
    return bool(page.messages) or page.missed > 0


def _message(shard: int, raw: Any, deliveries: int | None = None) -> Message:
    """One element of XRANGE's answer."""
    fields = raw[1]
    return Message(
        position=Position(shard, Entry.parse(raw[0])),
        sender=fields[1].decode(),
        at=datetime.fromtimestamp(int(fields[3]) / 1000, UTC),
        type=fields[5].decode() or None,
        metadata=fields[7] or None,
        payload=fields[9],
        deliveries=deliveries,
    )
