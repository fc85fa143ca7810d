"""Selection: the parts of a document that a JSONPath (RFC 9535) names, as they stand in its text.

A path is a program that an agent may write: each step costs from a budget, and the work is done apart from the event
loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from jsonpath import JSONPathError, JSONPathMatch
from msgspec import Raw

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.lazy import MAX_STEPS, NARROW, Array, Budget, Object, decode_lazily
from agentmemory_engine.paths import compile_path, follow

MAX_MATCHES = 10_000
ALLOWANCE = 1 << 20
"""Bytes that the matches may have beyond four times the document: a value is in its parents as well."""


class Match(NamedTuple):
    """A value's normalized path (RFC 9535 section 2.7), and its text as it stands in the document."""

    path: str
    value: Raw


class Selector:
    """Answers paths, one at a time, in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="selection")

    def close(self) -> None:
        """Let the thread end with what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def select(self, body: bytes, path: str) -> list[Match]:
        """As the function `select`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, select, body, path)


def select(body: bytes, path: str) -> list[Match]:
    """Where `path` leads in a document, in the order of RFC 9535; nowhere is an empty list.

    Raises InvalidInput for a path that is none, or that costs more than is allowed.
    """
    budget = Budget(MAX_STEPS)
    document = decode_lazily(Raw(body.strip()), budget)
    matches: list[Match] = []
    left = 4 * len(body) + ALLOWANCE
    try:
        for found in follow(compile_path(path, budget), document, document):
            match = Match(_normalized(found.parts), _text_of(found, body))
            left -= len(match.path) + len(memoryview(match.value))
            if left < 0:
                raise InvalidInput(f"What the path leads to is much larger than the document; {NARROW}.")
            if len(matches) == MAX_MATCHES:
                raise InvalidInput(f"The path leads to more than {MAX_MATCHES:,} values; {NARROW}.")
            matches.append(match)
    except (JSONPathError, RecursionError):
        raise InvalidInput(f"The path descends too often in a document this deep; {NARROW}.") from None
    return matches


def check_path(path: str) -> None:
    """Raises InvalidInput unless this is a path."""
    compile_path(path, Budget(0))


def _text_of(found: JSONPathMatch, body: bytes) -> Raw:
    if found.parent is None:
        return Raw(body)
    parent = found.parent.obj
    assert isinstance(parent, Object | Array)
    text: Raw = parent.texts[found.parts[-1]]  # type: ignore[index]
    return text


def _normalized(parts: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{_quoted(part) if isinstance(part, str) else part}]" for part in parts)


def _quoted(name: str) -> str:
    return "'" + json.dumps(name, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
