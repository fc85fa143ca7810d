"""JSON as the sidecar takes it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec


def encode(value: Any) -> bytes:
    """JSON in UTF-8 of plain values, structs, dates and UUIDs.

    Raises:
        ValueError: it holds NaN, an infinity or half of a surrogate pair, which JSON cannot carry.
        TypeError: it holds something that has no JSON.
    """
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


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
