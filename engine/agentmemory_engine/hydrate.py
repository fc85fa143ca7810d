"""Hydrate: an agent's context on wake-up, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agentmemory_engine.answers import FactHit, Hit, StoredEvent

T = TypeVar("T")
_SHARE_OF_RECALL = 0.5
_SHARE_OF_KNOWLEDGE = 0.25


@dataclass(frozen=True, kw_only=True)
class HydrateQuery:
    """What to wake up to. `tokens` is the budget; without `query` nothing is recalled. `restore` writes an expired
    document back."""

    query: str | None = None
    tokens: int = 2000
    k: int = 8
    facts: int = 8
    restore: bool = False


@dataclass(frozen=True)
class Context:
    """What fits, as values and as one text."""

    document: bytes | None
    recent: list[StoredEvent]
    recalled: list[Hit]
    knowledge: list[FactHit]
    text: str
    tokens: int
    left_out: dict[str, int]


def estimate_tokens(text: str) -> int:
    """About how many tokens a model sees: one for four bytes of UTF-8, rounded up."""
    return -(-len(text.encode()) // 4)


def describe_event(event: StoredEvent) -> str:
    """One line for a model to read."""
    body = event.content if event.content is not None else (event.payload or b"").decode()
    who = event.role if event.role is not None else event.type
    return f"[{event.at:%Y-%m-%d %H:%M}] {who}: {body}"


def describe_fact(hit: FactHit) -> str:
    """One line for a model to read; how sure it is of that is said where it is not."""
    fact = hit.fact
    doubt = "" if fact.confidence >= 1 else f" (confidence {fact.confidence:g})"
    return f"{fact.topic}: {fact.content}{doubt}"


def assemble(
    document: bytes | None, recent: Sequence[StoredEvent], hits: Sequence[Hit], facts: Sequence[FactHit], tokens: int
) -> Context:
    """Choose what fits into so many tokens.

    Working memory comes first, then the best facts in a quarter of what is left and the best recalled events in half
    of it, then the newest messages, then more of what was recalled. An event that is recent is not recalled as well.
    """
    known = {event.id for event in recent}
    recalled = [hit for hit in hits if hit.event.id not in known]
    left = tokens
    whole = _section("Working memory", [document.decode()]) if document is not None else ""
    fits = estimate_tokens(whole) <= left
    if document is not None and fits:
        left -= estimate_tokens(whole)
    share = int(left * _SHARE_OF_RECALL)
    learned = _take(facts, int(left * _SHARE_OF_KNOWLEDGE), describe_fact)
    left -= sum(_cost(describe_fact(hit)) for hit in learned)
    first = _take(recalled, share, lambda hit: describe_event(hit.event))
    left -= sum(_cost(describe_event(hit.event)) for hit in first)
    newest = _take(recent[::-1], left, describe_event)[::-1]
    left -= sum(_cost(describe_event(event)) for event in newest)
    more = _take(recalled[len(first) :], left, lambda hit: describe_event(hit.event))
    chosen = [*first, *more]
    text = "\n\n".join(
        part
        for part in (
            whole if fits else "",
            _section("Known", [describe_fact(hit) for hit in learned]),
            _section("Recalled", [describe_event(hit.event) for hit in chosen]),
            _section("Recent", [describe_event(event) for event in newest]),
        )
        if part
    )
    left_out = {
        "working_memory": int(document is not None and not fits),
        "recent": len(recent) - len(newest),
        "recalled": len(recalled) - len(chosen),
        "knowledge": len(facts) - len(learned),
    }
    return Context(document if fits else None, newest, chosen, learned, text, estimate_tokens(text), left_out)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"# {title}", *lines]) if lines else ""


def _cost(line: str) -> int:
    """Tokens of a line, its line break and its part of a heading included."""
    return estimate_tokens(line) + 2


def _take(items: Sequence[T], budget: int, text_of: Callable[[T], str]) -> list[T]:
    """As many of the first items as fit; the rest is left out, even what is smaller, so that order means rank."""
    taken = []
    for item in items:
        budget -= _cost(text_of(item))
        if budget < 0:
            break
        taken.append(item)
    return taken
