"""JSON that is decoded only as far as it is looked at, within a budget. Every value keeps the text it was sent as."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, overload

import msgspec
from msgspec import Raw

from agentmemory_engine.errors import InvalidInput

MAX_STEPS = 200_000
"""Values that a path may look at."""
MAX_SECONDS = 1.0
"""Of the processor; it bounds what one step may cost."""
NARROW = "name more of the way, or read the document whole"

_DECODED_A_STEP = 1024
_LONGEST_NUMBER = 400


class Budget:
    """What one evaluation may still cost."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._deadline = time.thread_time() + MAX_SECONDS

    def spend(self, steps: int = 1) -> None:
        """Raises InvalidInput when nothing is left."""
        before, self._steps = self._steps, self._steps - steps
        if self._steps < 0:
            raise InvalidInput(f"The path looks at more than {MAX_STEPS:,} values of this document; {NARROW}.")
        if before >> 6 != self._steps >> 6:
            self.seconds()

    def seconds(self) -> float:
        """How much time is left. Raises InvalidInput when there is none."""
        left = self._deadline - time.thread_time()
        if left <= 0:
            raise InvalidInput(f"The path takes longer than {MAX_SECONDS:g} s; {NARROW}.")
        return left


class Object(Mapping[str, Any]):
    """A JSON object whose members are decoded when they are looked at."""

    def __init__(self, text: Raw, budget: Budget) -> None:
        self.texts: dict[str, Raw] = msgspec.json.decode(text, type=dict[str, Raw])
        self._budget = budget
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        self._budget.spend()
        if name not in self._known:
            self._known[name] = decode_lazily(self.texts[name], self._budget)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


class Array(Sequence[Any]):
    """A JSON array whose elements are decoded when they are looked at."""

    def __init__(self, text: Raw, budget: Budget) -> None:
        self.texts: list[Raw] = msgspec.json.decode(text, type=list[Raw])
        self._budget = budget
        self._known: dict[int, Any] = {}

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self.texts)))]
        self._budget.spend()
        text = self.texts[index]
        place = index % len(self.texts)
        if place not in self._known:
            self._known[place] = decode_lazily(text, self._budget)
        return self._known[place]

    def __len__(self) -> int:
        return len(self.texts)


def decode_lazily(text: Raw, budget: Budget) -> Any:
    view = memoryview(text)
    budget.spend(len(view) // _DECODED_A_STEP)
    match view[:1].tobytes():
        case b"{":
            return Object(text, budget)
        case b"[":
            return Array(text, budget)
        case b'"':
            return msgspec.json.decode(text, type=str)
        case b"t":
            return True
        case b"f":
            return False
        case b"n":
            return None
    return number_of(view.tobytes().decode())


def number_of(text: str) -> int | float:
    """A number for comparing: whole ones exactly, others as a double."""
    if len(text) <= _LONGEST_NUMBER:
        try:
            exact = Decimal(text)
        except InvalidOperation:  # an exponent that no decimal has: nothing, or more than anything
            return float(text)
        if abs(exact.adjusted()) <= _LONGEST_NUMBER and exact == exact.to_integral_value():
            return int(exact)
    return float(text)
