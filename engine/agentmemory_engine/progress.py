"""Progress: lets a barrier wait for the next commit of this process instead of polling quickly."""

from __future__ import annotations

import asyncio


class Progress:
    """Something became durable or searchable."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()

    async def report(self) -> None:
        """Wake everyone who waits."""
        async with self._condition:
            self._condition.notify_all()

    async def wait(self, seconds: float) -> None:
        """Return at the next report, or after so many seconds: another process may have made the progress."""
        async with self._condition:
            try:
                async with asyncio.timeout(seconds):
                    await self._condition.wait()
            except TimeoutError:
                return
