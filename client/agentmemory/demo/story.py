"""What happens in the demonstration, read from the files beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from agentmemory.models import NewEvent

HERE = Path(__file__).parent
CONFIG = HERE / "agentmemory.yaml"
AGENT = "research-1"
READINGS = 240


class StoryTurn(Struct):
    """One turn of the story; `merge` changes the working-memory document."""

    session: str
    event: NewEvent
    merge: dict[str, Any] | None = None


class Question(Struct):
    """What is asked at the end; an answer is an event with one of the labels in `expects`."""

    question: str
    expects: list[str]


def read_days() -> dict[str, list[StoryTurn]]:
    """The turns of each day, in order."""
    days: dict[str, list[StoryTurn]] = {}
    for turn in _read("story.jsonl", StoryTurn):
        days.setdefault(turn.session, []).append(turn)
    return days


def read_questions() -> list[Question]:
    """What is asked, and which events answer it."""
    return list(_read("questions.jsonl", Question))


def readings(session: str) -> list[StoryTurn]:
    """What two pilot units report all day: few values, so that most turns equal others, word for word."""
    return [
        StoryTurn(
            session=session,
            event=NewEvent(
                type="reading",
                role="tool",
                content=f"Unit {number % 2}: all is well.",
                payload={"celsius": 4 + number % 3},
            ),
        )
        for number in range(READINGS)
    ]


def _read(name: str, kind: type[Any]) -> Iterator[Any]:
    for line in (HERE / name).read_text().splitlines():
        yield msgspec.json.decode(line, type=kind)
