"""Which process runs on which core: a wake-up across cores costs more than a read, so no latency means much without."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

ROLES = ("client", "sidecar", "redis", "postgres")


@dataclass(frozen=True)
class Placement:
    """The core of each role, 0 or 1 of the two that are used; a role that is not named may run on any."""

    name: str
    cores: Mapping[str, int]

    @property
    def needs(self) -> int:
        """How many cores it takes."""
        return 1 + max(self.cores.values(), default=0)

    def describe(self) -> str:
        """The roles on each core, as the report says it."""
        parts = []
        for core in sorted(set(self.cores.values())):
            names = [role for role in ROLES if self.cores.get(role) == core]
            parts.append(f"core {core}: {', '.join(names)}")
        free = [role for role in ROLES if role not in self.cores]
        if free:
            parts.append(f"any core: {', '.join(free)}")
        return "; ".join(parts)


FREE = Placement("free", {})
ONE_CORE = Placement("same core", {"client": 0, "sidecar": 0, "redis": 0, "postgres": 0})
REDIS_APART = Placement("other core", {"client": 1, "redis": 0})
SIDECAR_APART = Placement("other core", {"sidecar": 0, "redis": 1, "client": 1})
CLIENT_APART = Placement("client apart", {"client": 1, "redis": 0, "sidecar": 0})


@dataclass(frozen=True)
class Contrast:
    """Where a raw call to Redis is measured, and where a call through the sidecar that is compared with it."""

    name: str
    raw: Placement
    served: Placement


SAME_CORE = Contrast("same core", ONE_CORE, ONE_CORE)
OTHER_CORE = Contrast("other core", REDIS_APART, SIDECAR_APART)
AGENT_APART = Contrast("agent's core apart", CLIENT_APART, CLIENT_APART)


class Pinning:
    """Moves processes between cores. Where the system cannot do that, everything runs free, and is reported so."""

    def __init__(self, processes: Mapping[str, int], cores: Sequence[int]) -> None:
        """`processes` is the main process of each role but the client, which is this one; `cores` can be used."""
        self._processes = {"client": os.getpid(), **processes}
        self._all = list(cores)

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The ones that this machine can show."""
        known = (SAME_CORE, OTHER_CORE, AGENT_APART)
        fitting = [one for one in known if max(one.raw.needs, one.served.needs) <= len(self._all)]
        return tuple(fitting) or (Contrast("free", FREE, FREE),)

    def apply(self, placement: Placement) -> None:
        """Move every process, with its threads and children, to its cores."""
        for role, pid in self._processes.items():
            core = placement.cores.get(role)
            _move(pid, self._all if core is None else [self._all[core]])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Whatever is applied within, everything runs free afterwards."""
        try:
            yield
        finally:
            self.apply(FREE)


def usable_cores() -> list[int]:
    """The cores that this process may run on now; none where it cannot be moved."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _move(pid: int, cores: list[int]) -> None:
    if not cores:
        return
    main = psutil.Process(pid)
    # This process is the parent of the others, which have roles of their own.
    family = [main] if pid == os.getpid() else [main, *main.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, cores)
