"""Cursors: where a page ended, as an opaque text that is good for the query of that page only."""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from agentmemory_engine.errors import InvalidInput

T = TypeVar("T")
_DIGEST = 8
"""Bytes that tell one query from another."""


def format_place(place: Any, *query: Any) -> str:
    """The place, a NamedTuple, for `parse_place`; `query` is whatever tells this query from others."""
    return base64.urlsafe_b64encode(_digest(query) + msgspec.json.encode(place)).decode()


def parse_place(text: str, kind: type[T], *query: Any) -> T:
    """The reverse of format_place. Raises InvalidInput, for the cursor of another query as well."""
    try:
        known = base64.b64decode(text, altchars=b"-_", validate=True)
        place = msgspec.json.decode(known[_DIGEST:], type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidInput("The cursor is not one that a page gave; use it as it was, or leave it out.") from None
    if known[:_DIGEST] != _digest(query):
        raise InvalidInput("The cursor is of another query; ask as for the page that gave it, or leave it out.")
    return place


def _digest(query: tuple[Any, ...]) -> bytes:
    return blake2b(msgspec.json.encode(query), digest_size=_DIGEST).digest()
