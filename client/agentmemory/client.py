"""The way in: a sidecar's address, and what concerns its whole memory."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import msgspec
from yarl import URL

from agentmemory.agent import Agent
from agentmemory.calls import query_string
from agentmemory.channels import Channel, ChannelInfo, ChannelPage
from agentmemory.distillations import Distillation, DistillationPage
from agentmemory.encoding import encode
from agentmemory.errors import BarrierTimeout, NotReady, Unavailable, Unreachable
from agentmemory.models import (
    AgentEvent,
    AgentsTimelinePage,
    DeadLetter,
    DeadLetterPage,
    EmbeddingModel,
    Position,
    Receipt,
    Status,
)
from agentmemory.retries import NO_RETRIES, Retries
from agentmemory.timelines import Moment, each_event, timeline_query
from agentmemory.transport import Request, Transport

DEFAULT_URL = "http://127.0.0.1:7070"
URL_VARIABLE = "AGENTMEMORY_URL"
LONGEST_BARRIER = 60.0  # seconds that the sidecar waits in one request
LARGEST_BARRIER = 1000  # positions that it takes in one
LONGEST_POLL = 0.5  # seconds

Until = Literal["durable", "searchable"]


class _State(msgspec.Struct):
    state: str


class _Models(msgspec.Struct):
    models: list[EmbeddingModel]


class AgentMemory:
    """The memory behind one sidecar; an async context manager over one connection pool.

    Args:
        url: the sidecar; default: the variable AGENTMEMORY_URL, else http://127.0.0.1:7070.
        client_name: goes into the header that the sidecar asks every caller for.
        timeout: seconds for one try of a request.
        retries: how long a request is repeated when nothing answers, or the answer is 503.

    Raises:
        ValueError: `url` is not an http address.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client_name: str = "python",
        timeout: float = 10.0,
        retries: Retries | None = None,
    ) -> None:
        self.url = _checked(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
        self._timeout = timeout
        self._transport = Transport(self.url, client_name=client_name, timeout=timeout, retries=retries or Retries())

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    def agent(self, name: str) -> Agent:
        """One agent's memory; nothing is sent.

        Raises:
            ValueError: no agent can have that name.
        """
        return Agent(self._transport, name)

    def channel(self, name: str) -> Channel:
        """One channel of messages between agents; nothing is sent.

        Raises:
            ValueError: no channel can have that name.
        """
        return Channel(self._transport, name)

    async def channels(self, *, page_size: int = 100) -> AsyncIterator[ChannelInfo]:
        """All channels by name, page by page."""
        cursor: str | None = None
        while True:
            page = await self.channel_page(limit=page_size, cursor=cursor)
            for channel in page.channels:
                yield channel
            cursor = page.cursor
            if cursor is None:
                return

    async def channel_page(self, *, limit: int = 100, cursor: str | None = None) -> ChannelPage:
        """One page of them; `cursor`, from the page before, continues."""
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = await self._transport.send(Request(method="GET", path=f"/v1/channels?{urlencode(query)}"))
        return answer.decode(ChannelPage)

    async def status(self) -> Status:
        """Lag, counts, and each shard."""
        return (await self._transport.send(_STATUS)).decode(Status)

    async def embedding_models(self) -> list[EmbeddingModel]:
        """The models that have vectors, how far their back-fill is, and which one recall goes by."""
        return (await self._transport.send(_MODELS)).decode(_Models).models

    async def remove_embedding_model(self, id: int) -> None:
        """Have the vectors of a former model deleted; the sidecars do it in the background.

        Raises:
            NoModel: there is none of that id.
            ModelInUse: recall goes by it, or a sidecar embeds by it.
        """
        await self._transport.send(Request(method="DELETE", path=f"/v1/embedding-models/{int(id)}"))

    async def state(self, agent: str, position: str) -> str:
        """How far a turn has come: `pending`, `durable`, `searchable` or `lost`."""
        query = urlencode({"agent": agent, "position": position})
        answer = await self._transport.send(Request(method="GET", path=f"/v1/consolidation?{query}"))
        return answer.decode(_State).state

    async def wait(
        self,
        places: Receipt | Position | Iterable[Receipt | Position],
        *,
        until: Until = "durable",
        within: float | None = 60.0,
    ) -> None:
        """Wait until all that was accepted at these places is durable, or searchable.

        `within` is in seconds; None: however long it takes.

        Raises:
            BarrierTimeout: it was not, in that time.
            PositionLost: a store went back in time past one of them.
        """
        positions = _positions(places)
        deadline = math.inf if within is None else time.monotonic() + within
        for first in range(0, len(positions), LARGEST_BARRIER):
            await self._wait_for(positions[first : first + LARGEST_BARRIER], until, deadline)

    async def timeline_page(
        self,
        agents: Sequence[str] = (),
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        types: Sequence[str] = (),
        session: str | None = None,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        order: Literal["asc", "desc"] = "asc",
        limit: int = 100,
        cursor: str | None = None,
    ) -> AgentsTimelinePage:
        """One page of what several agents did, 50 at most; by time of acceptance, each agent's events in their order.

        Without `agents`, all that this pod may name, where they are named one by one. `cursor`, from the page before,
        continues it with the same agents, filters and order.
        """
        query = timeline_query(
            since=since, until=until, types=types, session=session, role=role, metadata=metadata, order=order,
            limit=limit, cursor=cursor, agents=list(agents) or None,
        )  # fmt: skip
        answer = await self._transport.send(Request(method="GET", path=f"/v1/events{query_string(query)}"))
        return answer.decode(AgentsTimelinePage)

    async def timeline(
        self,
        agents: Sequence[str] = (),
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        types: Sequence[str] = (),
        session: str | None = None,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 500,
        allow_degraded: bool = False,
    ) -> AsyncIterator[AgentEvent]:
        """All that several agents did, page by page.

        Raises:
            DegradedAnswer: a store does not answer, so that events are missing; not with `allow_degraded`.
        """

        async def read(cursor: str | None) -> AgentsTimelinePage:
            return await self.timeline_page(
                agents, since=since, until=until, types=types, session=session, role=role, metadata=metadata,
                order=order, limit=page_size, cursor=cursor,
            )  # fmt: skip

        async for event in each_event(read, allow_degraded=allow_degraded):
            yield event

    async def dead_letters(self, *, page_size: int = 100) -> AsyncIterator[DeadLetter]:
        """Every event that Postgres refuses, and every document that cannot be read, page by page."""
        cursor: str | None = None
        while True:
            page = await self.dead_letter_page(limit=page_size, cursor=cursor)
            for letter in page.dead_letters:
                yield letter
            cursor = page.cursor
            if cursor is None:
                return

    async def dead_letter_page(self, *, limit: int = 100, cursor: str | None = None) -> DeadLetterPage:
        """One page of them; `cursor`, from the page before, continues."""
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = await self._transport.send(Request(method="GET", path=f"/v1/dead-letters?{urlencode(query)}"))
        return answer.decode(DeadLetterPage)

    async def dead_letter_bytes(self, agent: str, id: str) -> bytes:
        """A dead letter as it was found, byte for byte.

        Raises:
            NoDeadLetter: there is none of that id.
        """
        return (await self._transport.send(Request(method="GET", path=f"{_letter(agent, id)}/raw"))).body

    async def distillations(self, *, given_up: bool | None = None, page_size: int = 100) -> AsyncIterator[Distillation]:
        """The sessions that facts are still to be drawn from, those that were given up, or (None) both."""
        cursor: str | None = None
        while True:
            page = await self.distillation_page(given_up=given_up, limit=page_size, cursor=cursor)
            for one in page.distillations:
                yield one
            cursor = page.cursor
            if cursor is None:
                return

    async def distillation_page(
        self, *, given_up: bool | None = None, limit: int = 100, cursor: str | None = None
    ) -> DistillationPage:
        """One page of them; `cursor`, from the page before, continues."""
        chosen = None if given_up is None else str(given_up).lower()
        query = query_string({"given_up": chosen, "limit": limit, "cursor": cursor})
        answer = await self._transport.send(Request(method="GET", path=f"/v1/distillations{query}"))
        return answer.decode(DistillationPage)

    async def replay(self, agent: str, id: str) -> None:
        """Offer a dead letter to Postgres again.

        Raises:
            NoDeadLetter: there is none of that id.
            InvalidRequest: Postgres refuses it again, or it is a document; the letter is kept.
        """
        await self._transport.send(Request(method="POST", path=f"{_letter(agent, id)}/replay"))

    async def discard(self, agent: str, id: str) -> None:
        """Delete a dead letter for good.

        Raises:
            NoDeadLetter: there is none of that id.
        """
        await self._transport.send(Request(method="DELETE", path=_letter(agent, id)))

    async def wait_until_ready(self, *, within: float = 60.0) -> Status:
        """Wait until the sidecar answers, its stores answer it, and all its shards take turns.

        Raises:
            Unreachable, Unavailable: the last answer in `within` seconds.
            NotReady: it answers, and says what is missing.
        """
        patience = Retries(budget=within, longest=LONGEST_POLL)
        started, failures = time.monotonic(), 0
        while True:
            try:
                return await self._ready_status()
            except (NotReady, Unavailable, Unreachable):
                failures += 1
                pause = patience.pause(failures, time.monotonic() - started)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _ready_status(self) -> Status:
        status = (await self._transport.send(_STATUS, retries=NO_RETRIES)).decode(Status)
        if not status.ready:
            raise NotReady(f"{self.url} is not ready: {_missing(status)}.")
        return status

    async def _wait_for(self, positions: Sequence[Position], until: Until, deadline: float) -> None:
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return await self._barrier(positions, until, min(LONGEST_BARRIER, left))
            except BarrierTimeout:
                if time.monotonic() >= deadline:
                    raise

    async def _barrier(self, positions: Sequence[Position], until: Until, seconds: float) -> None:
        body = {"positions": positions, "until": until, "timeout_seconds": seconds}
        await self._transport.send(
            Request(
                method="POST",
                path="/v1/consolidation/barrier",
                body=encode(body),
                headers={"Content-Type": "application/json"},
                timeout=seconds + self._timeout,
            )
        )


_STATUS = Request(method="GET", path="/v1/consolidation")
_MODELS = Request(method="GET", path="/v1/embedding-models")


def _checked(url: str) -> str:
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no http address; it looks like {DEFAULT_URL}.")
    return url


def _positions(places: Receipt | Position | Iterable[Receipt | Position]) -> list[Position]:
    several = [places] if isinstance(places, Receipt | Position) else places
    return list(dict.fromkeys(place.place if isinstance(place, Receipt) else place for place in several))


def _letter(agent: str, id: str) -> str:
    return f"/v1/dead-letters/{quote(agent, safe='')}/{quote(id, safe='')}"


def _missing(status: Status) -> str:
    closed = [str(shard.shard) for shard in status.shards if not shard.open]
    reasons = [*status.degraded, *([f"shards not open: {', '.join(closed)}"] if closed else [])]
    return "; ".join(reasons)
