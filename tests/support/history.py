"""What writers sent and were told, and a checker that compares it with what the stores hold."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from agentmemory_engine.positions import Position


@dataclass
class Acknowledged:
    """A turn that was answered with 2xx."""

    agent: str
    writer: str
    number: int
    content: str
    event: str
    position: Position


@dataclass
class History:
    """All that was sent (contents) and all that was acknowledged, in the order of the answers."""

    sent: set[str] = field(default_factory=set)
    acknowledged: list[Acknowledged] = field(default_factory=list)


@dataclass
class Verdict:
    """What is wrong; nothing, when all lists are empty."""

    lost: list[Acknowledged] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    reordered: list[tuple[str, str]] = field(default_factory=list)
    misplaced: list[Acknowledged] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not any(vars(self).values())


def judge(history: History, rows: list[Any], documents: dict[str, bytes]) -> Verdict:
    """Compare the history with the rows of events and dead letters, and with the documents by agent.

    A row has agent_id, id, content, opening and sequence. A document holds, for each writer of its agent, the number of
    that writer's last acknowledged turn, or of a later one that was sent and not acknowledged.
    """
    verdict = Verdict()
    stored = {str(row["id"]): row for row in rows}
    verdict.doubled = [content for content, count in Counter(row["content"] for row in rows).items() if count > 1]
    verdict.invented = [row["content"] for row in rows if row["content"] not in history.sent]
    for turn in history.acknowledged:
        row = stored.get(turn.event)
        if row is None or row["content"] != turn.content:
            verdict.lost.append(turn)
        elif (row["opening"], row["sequence"]) != tuple(turn.position.entry):
            verdict.misplaced.append(turn)
    verdict.reordered = _reordered(history)
    verdict.unwritten = _unwritten(history, documents)
    return verdict


def _reordered(history: History) -> list[tuple[str, str]]:
    """A writer waits for each answer, so its positions within an agent only grow."""
    last: dict[tuple[str, str], Acknowledged] = {}
    wrong = []
    for turn in history.acknowledged:
        before = last.get((turn.agent, turn.writer))
        if before is not None and before.position >= turn.position:
            wrong.append((before.content, turn.content))
        last[turn.agent, turn.writer] = turn
    return wrong


def _unwritten(history: History, documents: dict[str, bytes]) -> list[str]:
    """Changes of a document that were acknowledged and are not in it."""
    wanted: dict[tuple[str, str], int] = {}
    for turn in history.acknowledged:
        wanted[turn.agent, turn.writer] = turn.number
    missing = []
    for (agent, writer), number in wanted.items():
        found = json.loads(documents.get(agent, b"{}")).get(writer, -1)
        if found < number:
            missing.append(f"{agent}: {writer} is at {found}, {number} was acknowledged")
    return missing
