"""What of an event is embedded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from agentmemory_engine.embedding.errors import Unembeddable


def searchable_text(content: str | None, payload: bytes | None) -> str:
    """The event's content; where it has none, the text values of its JSON payload, a line each, in their order.

    Empty when there is neither. Raises ValueError when the payload is not JSON.
    """
    if content is not None and content.strip():
        return content
    if payload is None:
        return ""
    return "\n".join(_texts(_parse(payload)))


def check_characters(texts: Sequence[str]) -> None:
    """Raises Unembeddable for a text that is not Unicode."""
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unembeddable("it holds a lone surrogate, which is no character", index=index) from None


def _parse(payload: bytes) -> Any:
    """Its numbers may be larger than any that Python's float holds: they are no text, and are not looked at."""
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        try:
            return json.loads(payload, parse_float=len, parse_int=len)
        except ValueError as error:
            raise ValueError(f"the payload is not JSON: {error}") from None


def _texts(value: Any) -> list[str]:
    """The strings inside a JSON value that say something. Keys name values and are left out."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if value.strip():
                found.append(value)
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
    return found
