"""What the tail's filters and merges mean, apart from any store."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_engine.jsonb import contains


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
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
