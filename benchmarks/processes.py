"""What processes use: processor time and memory, of a process and all its children."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil

_BETWEEN_LOOKS = 0.2  # seconds


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes. `pss` counts a page that n processes share as 1/n of it; None where the system does not tell."""

    rss: int
    pss: int | None

    @property
    def fair(self) -> int:
        """The truest there is: pss, else rss."""
        return self.rss if self.pss is None else self.pss


def family(pid: int) -> list[psutil.Process]:
    """The process and its children; empty when it is gone."""
    try:
        main = psutil.Process(pid)
        return [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def processor_seconds(pid: int) -> float:
    """Processor time of a process, its children, and those that ended and were waited for."""
    seconds = 0.0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
            seconds += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds


def footprint(pid: int) -> Footprint:
    """The memory of a process and its children."""
    rss, pss = 0, 0
    told = True
    for process in family(pid):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_full_info()
            rss += memory.rss
            told = told and hasattr(memory, "pss")
            pss += getattr(memory, "pss", 0)
    return Footprint(rss, pss if told else None)


class Peak:
    """The largest memory that was seen while it was watched."""

    def __init__(self) -> None:
        self.seen = Footprint(0, 0)

    def look(self, pid: int) -> None:
        """Look once."""
        now = footprint(pid)
        if now.fair > self.seen.fair:
            self.seen = now


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[Peak]:
    """The peak of a process, looked for several times a second until the block ends."""
    peak = Peak()

    async def look() -> None:
        while True:
            peak.look(pid)
            await asyncio.sleep(_BETWEEN_LOOKS)

    task = asyncio.create_task(look())
    try:
        yield peak
    finally:
        task.cancel()
        peak.look(pid)
