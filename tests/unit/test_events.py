"""What the tail's filters and merges mean, apart from any store."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import contains, parse_cursor


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": [1, 2, 3]}, {"a": [3, 1]}, True),
        ({"a": [1, 2, 3]}, {"a": [4]}, False),
        ({"a": [[1, 2]]}, {"a": [[1]]}, True),
        ({"a": 1}, {}, True),
        (None, {"a": 1}, False),
        ({"a": [1]}, {"a": 1}, False),
        ({"a": 1}, {"a": [1]}, False),
    ],
)
def test_containment_is_that_of_jsonb(value: Any, wanted: Any, expected: bool) -> None:
    assert contains(value, wanted) is expected


@pytest.mark.parametrize("text", ["", "x", "1.1-1", "1.1-1:", "1.1-1:x", "1.1-1:-1", ":1", "1.1-1:999999"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cursor(text)
