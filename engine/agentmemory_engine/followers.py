"""Followers: who waits for messages of channels. One look at the channels, for all of them, every few milliseconds.

A blocking read would need a connection of its own, and one for each shard on a Redis Cluster; a look costs one small
command a channel that is waited for, and none while nobody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from agentmemory_engine.errors import MemoryFault, TooManyFollowers
from agentmemory_engine.positions import Entry

Look = Callable[[str], Awaitable[Entry | None]]
_SHORTEST = 0.01
_LONGEST = 0.1
"""Seconds between two looks: right after news, and when there has been none for a while."""
_GROWTH = 1.1


class Followers:
    """Wakes those who wait for a channel when its last entry, which `look` answers, is another than they have seen."""

    def __init__(self, look: Look, limit: int) -> None:
        self._look = look
        self._limit = limit
        self._count = 0
        self._waiting: dict[str, list[tuple[Entry | None, asyncio.Future[None]]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._pause = _SHORTEST
        self.stopping = False
        """Whether nobody is to wait any more."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among those who wait. Raises TooManyFollowers."""
        if self._count >= self._limit:
            raise TooManyFollowers(
                f"{self._limit} already wait for messages at this sidecar; wait for several channels in turn, or retry."
            )
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def wait(self, channel: str, seen: Entry | None, seconds: float) -> None:
        """Return when the last entry of the channel is not `seen`, after this time, or at the end of all waiting.

        Raises StoreUnavailable as soon as Redis cannot be asked.
        """
        if self.stopping:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(channel, []).append((seen, future))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._run(), name="followers")
            self._looking.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            self._leave(channel, future)

    def _leave(self, channel: str, future: asyncio.Future[None]) -> None:
        left = [one for one in self._waiting.pop(channel, []) if one[1] is not future]
        if left:
            self._waiting[channel] = left

    def tell(self, channel: str, last: Entry | None) -> None:
        """The last entry of the channel is this one."""
        for seen, future in self._waiting.get(channel, ()):
            if seen != last and not future.done():
                self._pause = _SHORTEST
                future.set_result(None)

    def stop(self) -> None:
        """Let all who wait return, and whoever comes later."""
        self.stopping = True
        for future in self._futures():
            if not future.done():
                future.set_result(None)

    def _futures(self) -> list[asyncio.Future[None]]:
        return [future for several in self._waiting.values() for _, future in several]

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause)
            self._pause = min(_LONGEST, self._pause * _GROWTH)
            channels = list(self._waiting)
            found = await asyncio.gather(*(self._look(channel) for channel in channels), return_exceptions=True)
            for channel, answer in zip(channels, found, strict=True):
                if isinstance(answer, MemoryFault):
                    # On a cluster, the other channels may well be on servers that answer.
                    _fail((future for _, future in self._waiting.get(channel, ())), answer)
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    self.tell(channel, answer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._looking is task:
            self._looking = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _fail(self._futures(), error)

    async def close(self) -> None:
        """Stop, and end the looking."""
        self.stop()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})


def _fail(futures: Iterable[asyncio.Future[None]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
