"""The keyword index of one agent's events: which term occurs how often where, and what BM25 makes of it.

The collection is the agent's own events. Each counts with the one before it in its session as well, for an answer
rarely repeats the words of its question.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agentmemory_engine.bm25 import K1, MOST_TERMS, B, weight

Floats = NDArray[np.float64]

OWN = 0.7
"""The share of an event's own terms in its score; the rest is that of the event with the one before it."""
_LATE = 1000
"""Events that may wait to be sorted in by their ids."""
_ENTRY = 6
_TERM = 400
_EVENT = 64


@dataclass(frozen=True)
class Indexed:
    """What the index keeps of an event. `at` is in seconds since the epoch, `id` 16 bytes."""

    id: bytes
    at: float
    type: str
    role: str | None
    session: str | None
    terms: Sequence[str]


@dataclass
class _Postings:
    events: array[int] = field(default_factory=lambda: array("I"))
    counts: array[int] = field(default_factory=lambda: array("H"))


class Names:
    """Texts by number."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {}

    def number(self, name: str | None) -> int:
        """The number of this name; a new one gets the next."""
        return self._numbers.setdefault(name, len(self._numbers))

    def find(self, name: str | None) -> int:
        """The number of this name, -1 where it has none."""
        return self._numbers.get(name, -1)


class Columns:
    """What the events are filtered by, a number an event, in the order of the events."""

    def __init__(self) -> None:
        self.ids = bytearray()
        self.at = array("d")
        self.types, self.roles, self.sessions = array("I"), array("I"), array("I")
        self.type_names, self.role_names, self.session_names = Names(), Names(), Names()

    def __len__(self) -> int:
        return len(self.at)

    def append(self, event: Indexed) -> None:
        self.ids += event.id
        self.at.append(event.at)
        self.types.append(self.type_names.number(event.type))
        self.roles.append(self.role_names.number(event.role))
        self.sessions.append(self.session_names.number(event.session))

    def truncate(self, size: int) -> None:
        """Forget all events from this one on."""
        del self.ids[size * 16 :]
        for column in (self.at, self.types, self.roles, self.sessions):
            del column[size:]


class Postings:
    """An index that only grows: events are added in their order, and scored all at once."""

    def __init__(self) -> None:
        self.columns = Columns()
        self._terms: dict[str, _Postings] = {}
        self._lengths = array("I")
        self._previous = array("i")
        """Of each event, the one before it where that is of the same session, else -1."""
        self._entries = 0
        self._sorted: NDArray[np.bytes_] = np.empty(0, "S16")
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        """The ids in their order, and the places they stand at: of all events but the late ones."""
        self._late: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self) * _EVENT + self._entries * _ENTRY + len(self._terms) * _TERM

    def add(self, events: Iterable[Indexed]) -> None:
        """Add events that come after all that are here."""
        for event in events:
            place = len(self)
            self.columns.append(event)
            self._late[event.id] = place
            sessions = self.columns.sessions
            self._previous.append(place - 1 if place and sessions[place] == sessions[place - 1] else -1)
            self._lengths.append(len(event.terms))
            for term, count in Counter(event.terms).items():
                found = self._terms.setdefault(term, _Postings())
                found.events.append(place)
                found.counts.append(min(count, 65_535))
                self._entries += 1

    def find(self, ids: bytes) -> NDArray[np.int64]:
        """The places of the events with these ids, 16 bytes each; -1 for one that is not here."""
        if len(self._late) > _LATE:
            self._sort()
        wanted = np.frombuffer(ids, "S16")
        places = np.full(len(wanted), -1, np.int64)
        if len(self._sorted):
            near = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
            places = np.where(self._sorted[near] == wanted, self._order[near], -1)
        if self._late:
            for place in np.flatnonzero(places < 0):
                places[place] = self._late.get(ids[16 * place : 16 * place + 16], -1)
        return places

    def _sort(self) -> None:
        known = np.frombuffer(bytes(self.columns.ids), "S16")
        self._order = np.argsort(known, kind="stable")
        self._sorted = known[self._order]
        self._late.clear()

    def drop_last(self, events: Sequence[Indexed]) -> None:
        """Take back what was added last."""
        size = len(self) - len(events)
        is_sorted = True
        for event in events:
            is_sorted = self._late.pop(event.id, None) is not None and is_sorted
            for term in set(event.terms):
                found = self._terms[term]
                found.events.pop()
                found.counts.pop()
                self._entries -= 1
                if not found.events:
                    del self._terms[term]
        self.columns.truncate(size)
        del self._lengths[size:], self._previous[size:]
        if not is_sorted:
            self._sort()

    def scores(self, query: Iterable[str]) -> tuple[Floats, NDArray[np.bool_]]:
        """For each event, from 0 to 1, how much of the query's terms it and the one before it hold, rare ones counting
        for more; and whether it holds one of them itself."""
        total = len(self)
        own, joined = np.zeros(total), np.zeros(total)
        if not total:
            return own, own > 0
        lengths = np.frombuffer(self._lengths, np.uint32).astype(np.float64)
        previous = np.frombuffer(self._previous, np.int32)
        has = np.flatnonzero(previous >= 0)
        both = lengths.copy()
        both[has] += lengths[previous[has]]
        wanted = sorted(set(query), key=lambda term: (self._frequency(term), term))[:MOST_TERMS]
        most = sum(weight(total, self._frequency(term)) for term in wanted) * (K1 + 1)
        for term in wanted:
            if (found := self._terms.get(term)) is None:
                continue
            worth = weight(total, len(found.events))
            counts = np.zeros(total)
            counts[np.frombuffer(found.events, np.uint32)] = np.frombuffer(found.counts, np.uint16)
            own += worth * _saturate(counts, lengths)
            following = counts.copy()
            following[has] += counts[previous[has]]
            joined += weight(total, int(np.count_nonzero(following))) * _saturate(following, both)
        return (OWN * own + (1 - OWN) * joined) / (most or 1.0), own > 0

    def _frequency(self, term: str) -> int:
        found = self._terms.get(term)
        return 0 if found is None else len(found.events)


def _saturate(counts: Floats, lengths: Floats) -> Floats:
    mean = lengths.mean() or 1.0
    found: Floats = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths / mean))
    return found
