"""Conversations: made from a seed, or read from a file; and texts for turns. The same seed makes the same text."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_LINES_A_DAY = 400
_SPEAKERS = ("user", "assistant")
_SUBJECTS = (
    "the billing service", "our staging cluster", "the quarterly report", "the customer in Lyon", "the search index",
    "the new onboarding flow", "the data warehouse", "the mobile release", "the audit trail", "the vendor contract",
    "the payment gateway", "the support backlog", "the migration plan", "the pricing page", "the load test",
)  # fmt: skip
_EVENTS = (
    "failed at the second step", "was approved by the team lead", "moved to next Thursday", "needs another review",
    "costs a third more than planned", "was rolled back overnight", "now depends on the identity provider",
    "went live without trouble", "is blocked by a missing permission", "doubled its latency since Monday",
)  # fmt: skip
_REASONS = (
    "because the certificate had expired", "after the budget was cut", "since two people are on leave",
    "because the schema changed upstream", "after a long discussion with legal", "as the old contract runs out in May",
    "because retries filled the queue", "although nobody had asked for it", "since the figures did not add up",
)  # fmt: skip
_REQUESTS = (
    "Please look into it", "Remind me of it tomorrow", "Write that down", "Tell the others", "Find out who decided it",
    "Compare it with last year", "Keep an eye on it", "Draft an answer", "Check it against the log",
)  # fmt: skip
_SHORT = ("Okay.", "Thanks.", "Go on.", "Yes.", "No, wait.", "Understood.")


def sentence(random_source: random.Random) -> str:
    """One sentence of 60 to 130 characters, with a number in it."""
    choose = random_source.choice
    subject = choose(_SUBJECTS).capitalize()
    number = random_source.randint(100, 9999)
    return f"{subject} {choose(_EVENTS)} {choose(_REASONS)} ({number}). {choose(_REQUESTS)}."


def text_of(length: int, random_source: random.Random) -> str:
    """A text of exactly `length` characters."""
    text = sentence(random_source)
    while len(text) < length:
        text += " " + sentence(random_source)
    return text[:length]


def make_conversation(lines: int, seed: int) -> Iterator[dict[str, Any]]:
    """Utterances as `agentmemory import` takes them: some very short, most of one or two sentences."""
    random_source = random.Random(seed)
    at = _START
    for number in range(1, lines + 1):
        at += timedelta(seconds=random_source.randint(2, 90))
        short = random_source.random() < 0.15
        words = [sentence(random_source) for _ in range(random_source.choice((1, 1, 1, 2)))]
        yield {
            "id": number,
            "at": at.isoformat(),
            "session": f"day-{1 + (number - 1) // _LINES_A_DAY}",
            "speaker": _SPEAKERS[number % 2],
            "content": random_source.choice(_SHORT) if short else " ".join(words),
        }


def write_conversation(path: Path, lines: int, seed: int) -> None:
    """The made conversation as JSON Lines."""
    with path.open("w", encoding="utf-8") as stream:
        for line in make_conversation(lines, seed):
            stream.write(json.dumps(line) + "\n")


def contents_of(path: Path) -> list[str]:
    """What is said in a file of JSON Lines, in order."""
    with path.open(encoding="utf-8") as stream:
        return [str(json.loads(line)["content"]) for line in stream if line.strip()]


def document_of(size: int, seed: int) -> bytes:
    """A working-memory document of exactly `size` bytes; at least 64."""
    random_source = random.Random(seed)
    frame = json.dumps({"task": "review", "step": 3, "notes": ""})
    notes = text_of(size - len(frame), random_source)
    return json.dumps({"task": "review", "step": 3, "notes": notes}).encode()
