"""JSON as the sidecar takes and gives it."""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """JSON in UTF-8 of plain values, structs, dates and UUIDs.

    Raises:
        ValueError: it holds NaN, an infinity or half of a surrogate pair, which JSON cannot carry.
        TypeError: it holds something that has no JSON.
    """
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def decode(body: bytes, kind: type[T]) -> T:
    """A value from its JSON. A number that no float can hold is a Decimal.

    Raises:
        ValueError: it is no JSON, or not of that kind.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        # One such number, in what someone else recorded, must not keep everything around it from being read.
        return msgspec.convert(json.loads(body, parse_float=_number), type=kind)


def _number(text: str) -> float | Decimal:
    return number if math.isfinite(number := float(text)) else Decimal(text)


def timestamp(moment: datetime | str) -> str:
    """An RFC 3339 timestamp; a text is passed on as it is.

    Raises:
        ValueError: the datetime has no time zone, so that it could mean several moments.
    """
    if isinstance(moment, str):
        return moment
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone: give it one, such as datetime.UTC.")
    return moment.isoformat()
