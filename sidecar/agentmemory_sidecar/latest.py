"""A value that is asked for often and costs something: one question at a time, an answer within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """What `ask` last answered, at most `fresh` seconds old; None when it took longer than `patience` seconds.

    A question that takes longer goes on by itself, and whoever comes meanwhile waits for the same one.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], *, fresh: float = 1.0, patience: float = 2.5) -> None:
        self._ask = ask
        self._fresh = fresh
        self._patience = patience
        self._asking: asyncio.Task[T] | None = None
        self._answer: tuple[float, T] | None = None

    async def get(self) -> T | None:
        """Raises what `ask` raises."""
        if self._answer is not None and time.monotonic() - self._answer[0] < self._fresh:
            return self._answer[1]
        if self._asking is None:
            self._asking = asyncio.create_task(self._run())
            self._asking.add_done_callback(self._ended)
        asking = self._asking
        await asyncio.wait({asking}, timeout=self._patience)
        return asking.result() if asking.done() else None

    async def _run(self) -> T:
        value = await self._ask()
        self._answer = (time.monotonic(), value)
        return value

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """End a question that is still open."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
