"""Hydrate: an agent's context on wake-up, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agentmemory_engine.answers import FactHit, Hit, StoredEvent

T = TypeVar("T")
_SHARE_OF_RECALL = 0.5
_SHARE_OF_KNOWLEDGE = 0.25
_HEADING = 4
"""Tokens of the heading of a section, with what stands between two sections."""


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
    of it, then the newest messages, then more of what was recalled. No event is told twice.
    """
    whole = _section("Working memory", [document.decode()]) if document is not None else ""
    left = tokens - _HEADING * sum(map(bool, (facts, hits, recent)))
    fits = estimate_tokens(whole) + 1 <= left
    if document is not None and fits:
        left -= estimate_tokens(whole) + 1
    learned = _take(facts, int(left * _SHARE_OF_KNOWLEDGE), describe_fact)
    share = int(left * _SHARE_OF_RECALL)
    left -= _costs(map(describe_fact, learned))
    # What is sure to be among the newest is not recalled as well; what has no room there may be.
    sure = {event.id for event in _take(recent[::-1], left - share, describe_event)}
    recalled = [hit for hit in hits if hit.event.id not in sure]
    first = _take(recalled, share, _describe_hit)
    left -= _costs(map(_describe_hit, first))
    told = {hit.event.id for hit in first}
    newest = _take([event for event in recent[::-1] if event.id not in told], left, describe_event)[::-1]
    left -= _costs(map(describe_event, newest))
    shown = told | {event.id for event in newest}
    rest = [hit for hit in recalled if hit.event.id not in shown]
    chosen = [*first, *_take(rest, left, _describe_hit)]
    text = "\n\n".join(
        part
        for part in (
            whole if fits else "",
            _section("Known", [describe_fact(hit) for hit in learned]),
            _section("Recalled", [_describe_hit(hit) for hit in chosen]),
            _section("Recent", [describe_event(event) for event in newest]),
        )
        if part
    )
    shown |= {hit.event.id for hit in chosen}
    left_out = {
        "working_memory": int(document is not None and not fits),
        "recent": sum(event.id not in shown for event in recent),
        "recalled": sum(hit.event.id not in shown for hit in hits),
        "knowledge": len(facts) - len(learned),
    }
    return Context(document if fits else None, newest, chosen, learned, text, estimate_tokens(text), left_out)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"# {title}", *lines]) if lines else ""


def _describe_hit(hit: Hit) -> str:
    return describe_event(hit.event)


def _costs(lines: Iterable[str]) -> int:
    return sum(map(_cost, lines))


def _cost(line: str) -> int:
    """Tokens of a line, its line break included."""
    return estimate_tokens(line) + 1


def _take(items: Sequence[T], budget: int, text_of: Callable[[T], str]) -> list[T]:
    """As many of the first items as fit; the rest is left out, even what is smaller, so that order means rank."""
    taken = []
    for item in items:
        budget -= _cost(text_of(item))
        if budget < 0:
            break
        taken.append(item)
    return taken
