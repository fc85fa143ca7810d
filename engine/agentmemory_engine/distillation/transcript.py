"""A session as a model reads it: a line of JSON an event, in parts that keep to a number of tokens. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.hydrate import estimate_tokens
from agentmemory_engine.timeline_cursors import Place

_ALWAYS = 40
"""Tokens of a line beside its text, at most."""


class _Line(msgspec.Struct, omit_defaults=True):
    event: str
    at: str
    type: str
    who: str | None
    text: str
    left_out: int = 0
    """Characters of the text that had no room."""


@dataclass(frozen=True)
class Part:
    """Some events that follow each other, as a text, and what the ids in it stand for."""

    text: str
    sources: dict[str, UUID]
    last: Place

    def __len__(self) -> int:
        return len(self.sources)


def make_part(events: Sequence[StoredEvent], tokens: int) -> Part:
    """As many of the first events as fit into so many tokens, and one at least, cut where it is too long alone.

    There is at least one event.
    """
    lines: list[str] = []
    left = tokens
    for number, event in enumerate(events, start=1):
        line = _line(f"e{number}", event, tokens)
        left -= estimate_tokens(line) + 1
        if lines and left < 0:
            break
        lines.append(line)
    taken = events[: len(lines)]
    last = Place(taken[-1].position.entry, taken[-1].index)
    return Part("\n".join(lines), {f"e{number}": event.id for number, event in enumerate(taken, start=1)}, last)


def _line(name: str, event: StoredEvent, tokens: int) -> str:
    text = searchable_text(event.content, event.payload) or (event.payload or b"").decode()
    whole = len(text)
    while text and estimate_tokens(text) + _ALWAYS > tokens:
        text = text[: len(text) // 2]
    line = _Line(name, f"{event.at:%Y-%m-%dT%H:%MZ}", event.type, event.role, text, whole - len(text))
    return msgspec.json.encode(line).decode()


def is_enough(events: Iterable[StoredEvent], tokens: int) -> bool:
    """Whether no more than these events can fit: of each, its text at least counts."""
    return sum(estimate_tokens(searchable_text(event.content, event.payload)) + 1 for event in events) > tokens
