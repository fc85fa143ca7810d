"""One pipelined connection to Redis: commands are answered in order, and a caller that is cancelled leaves its place in
the queue behind, so that answers never reach the wrong caller."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from agentmemory_engine.errors import StoreUnavailable

Arg = bytes | str | int | float
_LINGER = 5.0
"""Seconds for which a connection that was replaced stays open."""


@dataclass(frozen=True)
class ServerInfo:
    """What a connection learnt of its server when it was made."""

    run_id: bytes
    """Of the process and of the history it writes: a replica that is promoted begins another history."""
    role: str
    flavour: str
    version: str
    eviction_policy: str
    append_only: bool
    used_memory: int
    max_memory: int
    cluster: bool = False
    """Whether it is a node of a Redis Cluster."""


class Connection(asyncio.Protocol):
    """One connection. Lost for good when `lost` is set."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._watchdog: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.lost = False
        self.info: ServerInfo | None = None
        self.opened: set[int] = set()
        """The shards that were seen open in this run."""
        self.trusted = False
        """Whether the cluster that this node belongs to was found to hold the memory of its identity record."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError as error:
                self.abort(f"it answered outside the protocol ({error})")
                return
            if reply is Ellipsis or not self._waiting:
                return
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection was lost" + (f" ({exc})" if exc else "") + "; is it running?")

    def abort(self, reason: str) -> None:
        """Close at once; whoever waits gets StoreUnavailable."""
        self._fail(reason)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        self.lost = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        while self._waiting:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_exception(StoreUnavailable("redis", reason))

    def retire(self) -> None:
        """Close when nothing has been under way for a while: what was sent is still answered, and whoever sends
        several commands in a row may finish."""
        self._loop.call_later(_LINGER, self._close_when_idle)

    def _close_when_idle(self) -> None:
        if self._waiting:
            self.retire()
        elif not self.lost:
            self.abort("it was replaced by another one")

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send a command; the future resolves to its reply (an error reply is a value, hiredis.ReplyError)."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost or self._transport is None:
            future.set_exception(StoreUnavailable("redis", "the connection was lost"))
            return future
        self._waiting.append((self._loop.time(), future))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout, self._watch)
        self._transport.write(hiredis.pack_command(args))  # type: ignore[arg-type]
        return future

    def _watch(self) -> None:
        """Give up a connection whose oldest command is overdue: a half-open peer never answers by itself."""
        self._watchdog = None
        if self.lost or not self._waiting:
            return
        due = self._waiting[0][0] + self._timeout
        if due <= self._loop.time():
            self.abort(f"no answer within {self._timeout:g} s")
        else:
            self._watchdog = self._loop.call_at(due, self._watch)
