"""What waits to be embedded, in units small enough that a query hardly waits for one, and in two lanes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentmemory_engine.embedding.vector import Vector

UNIT_CHARACTERS = 256
"""Texts go together up to this many characters; a longer one goes alone. Some milliseconds of work."""

UNIT_TEXTS = 8


@dataclass(frozen=True, eq=False)
class Unit:
    """Texts that go to the worker process at once, and where their vectors are waited for."""

    texts: Sequence[str]
    vectors: asyncio.Future[list[Vector]]


class Lanes:
    """Two queues: whatever waits in the lane of queries goes first."""

    def __init__(self) -> None:
        self._queries: deque[Unit] = deque()
        self._background: deque[Unit] = deque()
        self._filled = asyncio.Event()

    def put(self, unit: Unit, *, query: bool) -> None:
        """Let it wait for its turn."""
        (self._queries if query else self._background).append(unit)
        self._filled.set()

    async def take(self) -> Unit:
        """The next unit that someone still waits for; waits for one itself."""
        while True:
            for lane in (self._queries, self._background):
                while lane:
                    unit = lane.popleft()
                    if not unit.vectors.done():
                        return unit
            self._filled.clear()
            await self._filled.wait()

    def fail(self, error: Exception) -> None:
        """Fail everything that waits."""
        for lane in (self._queries, self._background):
            while lane:
                fail(lane.popleft(), error)


def fail(unit: Unit, error: Exception) -> None:
    """Tell who waits for the unit, if anyone still does."""
    if not unit.vectors.done():
        unit.vectors.set_exception(error)


def pack(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts, in order, in groups that make a unit each."""
    first = characters = 0
    for number, text in enumerate(texts):
        characters += len(text)
        if number > first and (characters > UNIT_CHARACTERS or number - first == UNIT_TEXTS):
            yield texts[first:number]
            first, characters = number, len(text)
    if texts:
        yield texts[first:]
