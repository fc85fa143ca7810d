"""What the client was told against what memory holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentmemory.models import Receipt

DURABLE = frozenset({"durable", "searchable"})


@dataclass(frozen=True)
class Acknowledged:
    """An event that a 2xx answer named, and the position of its turn."""

    id: str
    position: str
    day: str


@dataclass
class Ledger:
    """Every event that was acknowledged, in the order of the answers."""

    entries: list[Acknowledged] = field(default_factory=list)
    repeated: int = 0

    def enter(self, receipt: Receipt, day: str) -> None:
        """Note what an answer names."""
        self.entries.extend(Acknowledged(event.id, receipt.position, day) for event in receipt.events)
        self.repeated += receipt.repeated


@dataclass
class DayCount:
    """Events of one day."""

    acknowledged: int = 0
    durable: int = 0
    searchable: int = 0
    found: int = 0

    @property
    def equal(self) -> bool:
        """Whether memory holds what was acknowledged."""
        return self.acknowledged == self.durable == self.searchable == self.found


@dataclass(frozen=True)
class Audit:
    """The outcome: counts by day, and how many events were lost or doubled."""

    days: Mapping[str, DayCount]
    lost: int
    doubled: int

    @property
    def passed(self) -> bool:
        """Whether every number is as it must be."""
        return self.lost == self.doubled == 0 and all(day.equal for day in self.days.values())


def audit(ledger: Ledger, timeline: Iterable[str], states: Mapping[str, str]) -> Audit:
    """Compare the ledger with the ids in the timeline and the state of each position.

    Two acknowledged turns under one id are one lost. What stands in the timeline without an acknowledgement, or twice,
    is doubled: a retry that was taken for another turn.
    """
    found = Counter(timeline)
    acknowledged = {entry.id for entry in ledger.entries}
    days: dict[str, DayCount] = {}
    for entry in ledger.entries:
        day = days.setdefault(entry.day, DayCount())
        state = states.get(entry.position, "unknown")
        day.acknowledged += 1
        day.durable += state in DURABLE
        day.searchable += state == "searchable"
        day.found += found[entry.id] == 1
    held = len(acknowledged & found.keys())
    return Audit(days=days, lost=len(ledger.entries) - held, doubled=found.total() - held)
