"""Work: how long something took on the clock, and the processor time that it took in each process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.processes import processor_seconds

PYTHON = "Python"


@dataclass
class Work:
    """What `count` turns took, in seconds; filled in when the block of `measured` ends."""

    count: int
    wall: float = 0.0
    processor: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Turns a second, on the clock."""
        return self.count / self.wall

    def rate_a_core(self, *processes: str) -> float:
        """Turns for each second of processor time in these processes."""
        return self.count / sum(self.processor[name] for name in processes)

    def microseconds(self, process: str) -> float:
        """Processor time a turn."""
        return self.processor[process] / self.count * 1e6


@contextmanager
def measured(count: int, processes: Mapping[str, int]) -> Iterator[Work]:
    """The work of the block, which handles `count` turns: of this process, and of others by name and pid."""
    work = Work(count)
    before = _processor(processes)
    started = time.perf_counter()
    yield work
    work.wall = time.perf_counter() - started
    work.processor = {name: seconds - before[name] for name, seconds in _processor(processes).items()}


def _processor(processes: Mapping[str, int]) -> dict[str, float]:
    return {PYTHON: time.process_time(), **{name: processor_seconds(pid) for name, pid in processes.items()}}
