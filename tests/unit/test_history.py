"""The checker of crash tests finds what it is there to find."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_engine.positions import Position
from support.history import Acknowledged, History, judge


def turn(number: int, position: str) -> Acknowledged:
    return Acknowledged("a", "w", number, f"content {number}", f"id-{number}", Position.parse(position))


def row(number: int, sequence: int, **changes: Any) -> dict[str, Any]:
    return {
        "agent_id": "a",
        "id": f"id-{number}",
        "content": f"content {number}",
        "opening": 1,
        "sequence": sequence,
    } | changes


TURNS = [turn(0, "0.1-0"), turn(1, "0.1-1")]
ROWS = [row(0, 0), row(1, 1)]
DOCUMENT = {"a": b'{"w": 1}'}


def verdict(turns: list[Acknowledged] = TURNS, rows: list[Any] = ROWS, documents: dict[str, bytes] = DOCUMENT) -> Any:
    return judge(History({f"content {number}" for number in range(3)}, turns), rows, documents)


def test_a_sound_history_is_clean() -> None:
    assert verdict().clean
    assert verdict(rows=[*ROWS, row(2, 2)]).clean, "sent, and stored without an answer"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lost", {"rows": ROWS[:1]}),
        ("lost", {"rows": [ROWS[0], row(1, 1, content="another")]}),
        ("doubled", {"rows": [*ROWS, row(1, 2, id="other")]}),
        ("invented", {"rows": [*ROWS, row(9, 9)]}),
        ("misplaced", {"rows": [ROWS[0], row(1, 5)]}),
        ("reordered", {"turns": [turn(0, "0.1-1"), turn(1, "0.1-0")]}),
        ("unwritten", {"documents": {"a": b'{"w": 0}'}}),
        ("unwritten", {"documents": {}}),
    ],
)
def test_a_fault_is_found(kind: str, changes: dict[str, Any]) -> None:
    assert getattr(verdict(**changes), kind)
