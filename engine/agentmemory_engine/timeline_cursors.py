"""Cursors: where a page of a timeline ended, good for the query of that page only.

A page ends at a place of each of its agents: the position of a turn, and an index in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.positions import Entry

_PLACE = r"\d{1,10}-\d{1,16}:\d{1,5}"
_TEXT = re.compile(rf"([0-9a-f]{{16}})\.({_PLACE}|)((?:,(?:{_PLACE}|))*)", re.ASCII)
LAST_INDEX = 32_767


class Place(NamedTuple):
    """An event's place in its agent's timeline."""

    entry: Entry
    number: int


Cursor = list[Place | None]
"""Where a page ended for each of its agents; None: before its first event."""


def fingerprint(agents: Sequence[str], order: str, conditions: Sequence[Any]) -> str:
    """What tells one query from another: whose events, in which order, under which conditions."""
    text = msgspec.json.encode((list(agents), order, list(conditions)))
    return blake2b(text, digest_size=8).hexdigest()


def format_cursor(cursor: Cursor, query: str) -> str:
    """The cursor as a text, for the query of that fingerprint."""
    places = ",".join(f"{place.entry}:{place.number}" if place else "" for place in cursor)
    return f"{query}.{places}"


def parse_cursor(text: str, query: str, *, agents: int) -> Cursor:
    """The reverse of format_cursor. Raises InvalidInput, for the cursor of another query as well."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidInput("The cursor is not one that a page gave; use it as it was, or leave it out to begin anew.")
    if match[1] != query:
        raise InvalidInput(
            "The cursor is of another query; ask as for the page that gave it (agents, filters and order), or leave it "
            "out to begin anew."
        )
    places = [_parse_place(place) for place in (match[2] + match[3]).split(",")]
    if len(places) != agents:
        raise InvalidInput("The cursor is not one that a page gave; use it as it was, or leave it out to begin anew.")
    return places


def _parse_place(text: str) -> Place | None:
    if not text:
        return None
    entry, _, index = text.partition(":")
    return Place(Entry.parse(entry), min(int(index), LAST_INDEX))
