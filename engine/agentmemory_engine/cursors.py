"""Cursors: where a page ended, as an opaque text."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import msgspec

from agentmemory_engine.errors import InvalidInput

T = TypeVar("T")


def format_place(place: Any) -> str:
    """The place, a NamedTuple, for `parse_place`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def parse_place(text: str, kind: type[T]) -> T:
    """The reverse of format_place. Raises InvalidInput."""
    try:
        return msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidInput("The cursor is not one that a page gave; use it as it was, or leave it out.") from None
