"""A workload as it is described: in a file, by options, or seen in a live memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agentmemory.advice.figures import LOCAL_DIMENSIONS
from agentmemory.advice.quantities import Bytes, Seconds, parse_bytes, parse_seconds

DAY = 86_400.0
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]
Recall = Literal["semantic", "keyword", "none"]
Loss = Literal["none", "seconds", "any"]


class InvalidWorkload(Exception):
    """What is described is no workload; the message names the field and says what to write."""


class Workload(Struct, kw_only=True, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What agents do. Rates are averages; `peak` says how much busier the busiest minutes are."""

    agents: Annotated[int, Meta(ge=1, le=10_000_000)]
    concurrent_agents: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """How many work at the same time; None: all."""
    sessions_per_day: Rate = 1.0
    """Of each agent."""
    turns_per_session: Rate = 50.0
    events_per_turn: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    event_size: Bytes = Bytes(350)
    document_size: Bytes = Bytes(2048)
    polls_per_second: Rate = 0.1
    """Reads of the document by each agent that works."""
    peak: Annotated[float, Meta(ge=1, le=1000)] = 5.0
    recall: Recall = "semantic"
    dimensions: Annotated[int, Meta(ge=1, le=4000)] = LOCAL_DIMENSIONS
    retention: Seconds | None = None
    """None: events are kept for good."""
    loss: Loss = "seconds"
    """Of what was acknowledged, when a store's machine dies: none, the last seconds, or any, since it is scratch."""
    channels: bool = False
    """Whether agents send each other messages."""
    outage: Seconds | None = None
    """How long agents have to go on while Postgres is down; None: they may stand still."""
    ttl: Seconds = Seconds(3600)
    has_redis: bool = False
    has_postgres: bool = False
    redis_memory: Bytes = Bytes(8 << 30)
    """The most that one is ready to give a Redis."""

    @property
    def working(self) -> int:
        """Agents at the same time."""
        return min(self.agents, self.concurrent_agents or self.agents)

    @property
    def turns_a_day(self) -> float:
        """Of all agents."""
        return self.agents * self.sessions_per_day * self.turns_per_session

    @property
    def turns_a_second(self) -> float:
        """Of all agents, in the busiest minutes."""
        return self.turns_a_day / DAY * self.peak

    @property
    def polls_a_second(self) -> float:
        """Of all agents that work."""
        return self.working * self.polls_per_second

    @property
    def kept_days(self) -> float:
        """For how long events are counted: a year where they are kept for good."""
        return 365.0 if self.retention is None else self.retention / DAY

    @property
    def kept_turns_of_each(self) -> float:
        """Of one agent, once the oldest begin to go."""
        return self.turns_a_day / self.agents * self.kept_days

    @property
    def kept_events(self) -> float:
        """Of all agents, once the oldest begin to go, or after a year."""
        return self.turns_a_day * self.events_per_turn * self.kept_days


def describe(workload: Workload) -> dict[str, Any]:
    """As a file has it, with all its members; durations are in seconds, sizes in bytes."""
    described: dict[str, Any] = msgspec.to_builtins(workload, enc_hook=_plain)
    return described


def _plain(value: Any) -> int | float:
    return int(value) if isinstance(value, int) else float(value)


def make_workload(described: dict[str, Any], origin: str) -> Workload:
    """From what a file or options say. Raises InvalidWorkload, which names `origin` and the field."""
    try:
        workload = msgspec.convert(described, Workload, dec_hook=_quantity)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".")
        raise InvalidWorkload(f"{origin}: {f'{field}: ' if field else ''}{message}") from None
    for name, low, high in (("retention", 1, 36_500), ("outage", 1, 365), ("ttl", 10, 3650)):
        seconds = getattr(workload, name)
        if seconds is not None and not low <= seconds <= high * DAY:
            raise InvalidWorkload(f"{origin}: {name}: it is from {low}s to {high}d")
    return workload


def read_described(path: Path) -> dict[str, Any]:
    """The members of a file in YAML or JSON. Raises InvalidWorkload."""
    import yaml

    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidWorkload(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidWorkload(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    if not isinstance(described, dict):
        raise InvalidWorkload(f"{path}: a workload is an object such as {{agents: 50, turnsPerSession: 40}}")
    return {str(name): value for name, value in described.items()}


def read_workload(path: Path) -> Workload:
    """The workload in a file of YAML or JSON. Raises InvalidWorkload."""
    return make_workload(read_described(path), str(path))


def _quantity(kind: type, value: Any) -> Any:
    return parse_seconds(value) if kind is Seconds else parse_bytes(value)
