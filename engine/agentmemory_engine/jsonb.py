"""JSON values as jsonb has them: what equals what, what contains what, and which numbers there are."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

from agentmemory_engine.errors import InvalidInput

_DIGITS_BEFORE, _DIGITS_AFTER = 131_072, 16_383
"""Of a number, around its decimal point."""


def json_of(text: bytes | None) -> Any:
    """A JSON value with exact numbers. Raises ValueError."""
    return None if text is None else json.loads(text, parse_float=_number, parse_int=_number)


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # An exponent that jsonb refuses as well: equal to nothing.
        return Decimal("NaN")


def given_json(text: str | bytes | None) -> Any:
    """As json_of, of a value in a request. Raises InvalidInput for what jsonb refuses."""
    try:
        value = json_of(text.encode() if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"A value in the request is no JSON: {error}.") from None
    _check(value)
    return value


def _check(value: Any) -> None:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, Decimal) and not _fits(value):
            raise InvalidInput("A number in the request is larger, or finer, than can be kept; send it as a text.")


def _fits(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and number.adjusted() < _DIGITS_BEFORE and -exponent <= _DIGITS_AFTER


def is_same_json(one: Any, other: Any) -> bool:
    """What `=` means: numbers by value, members in any order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same_json, one, other))
    return bool(one == other)


def contains(value: Any, wanted: Any) -> bool:
    """What `@>` means for objects: by key, arrays by element in any order, numbers by value."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(key in value and contains(value[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(one, other) for one in value) for other in wanted)
    return type(value) is type(wanted) and bool(value == wanted)
