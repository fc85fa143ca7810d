"""Timelines: what is asked for, and reading on from page to page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from agentmemory.encoding import encode, timestamp
from agentmemory.errors import DegradedAnswer

Moment = datetime | str
E = TypeVar("E", covariant=True)


class Page(Protocol[E]):
    """Part of a timeline; `cursor` continues it and is None at the end."""

    @property
    def events(self) -> Sequence[E]: ...

    @property
    def cursor(self) -> str | None: ...

    @property
    def degraded(self) -> list[str]: ...


def timeline_query(
    *,
    since: Moment | None,
    until: Moment | None,
    types: Sequence[str],
    metadata: Mapping[str, Any] | None,
    **others: Any,
) -> dict[str, Any]:
    """The query parameters of a timeline."""
    return {
        "since": since and timestamp(since),
        "until": until and timestamp(until),
        "type": list(types) or None,
        "metadata": None if metadata is None else encode(metadata).decode(),
        **others,
    }


async def each_event(read: Callable[[str | None], Awaitable[Page[E]]], *, allow_degraded: bool) -> AsyncIterator[E]:
    """The events of all pages, of which each is read by the cursor of the one before. Raises DegradedAnswer."""
    cursor: str | None = None
    while True:
        page = await read(cursor)
        if page.degraded and not allow_degraded:
            raise DegradedAnswer(page.degraded)
        for event in page.events:
            yield event
        cursor = page.cursor
        if cursor is None:
            return
