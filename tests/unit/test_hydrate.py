"""The budget of hydrate."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.answers import Fact, FactHit, Hit, StoredEvent
from agentmemory_engine.hydrate import assemble, describe_event
from agentmemory_engine.positions import Entry, Position


def event(number: int, content: str | None = "text") -> StoredEvent:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return StoredEvent(
        id=UUID(int=number), position=Position(0, Entry(1, number)), index=0, type="message", role="user",
        content=content, payload=None if content is not None else b'{"tool": "t"}', metadata=None, session=None,
        at=at, accepted_at=at,
    )  # fmt: skip


def fact(content: str, confidence: float = 1.0) -> FactHit:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    told = Fact(
        id=UUID(int=1), key=None, topic="t", content=content, confidence=confidence, sources=[], metadata=None,
        believed_from=since, believed_until=None, origin=UUID(int=1),
    )  # fmt: skip
    return FactHit(told, 0.5, {})


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


LISTS = st.lists(texts, max_size=8)


@given(LISTS, LISTS, LISTS, st.none() | st.just(b'{"a": 1}'), st.integers(1, 500))
def test_the_text_never_exceeds_its_budget(
    recent: list[str], recalled: list[str], facts: list[str], document: bytes | None, budget: int
) -> None:
    messages = [event(number, text) for number, text in enumerate(recent)]
    hits = [Hit(event(100 + number, text), 0.5, {}) for number, text in enumerate(recalled)]
    known = [fact(text) for text in facts]
    context = assemble(document, messages, hits, known, budget)
    assert context.tokens <= budget
    assert len(context.recent) + context.left_out["recent"] == len(messages)
    assert len(context.recalled) + context.left_out["recalled"] == len(hits)
    assert context.recent == messages[len(messages) - len(context.recent) :]
    assert context.recalled == hits[: len(context.recalled)]
    assert len(context.knowledge) + context.left_out["knowledge"] == len(known)
    assert context.knowledge == known[: len(context.knowledge)]


def test_all_fits_when_there_is_room() -> None:
    context = assemble(
        b'{"a":1}', [event(1, "hello")], [Hit(event(2, "before"), 0.9, {})], [fact("it is"), fact("so", 0.5)], 1000
    )
    assert context.text == (
        '# Working memory\n{"a":1}\n\n'
        "# Known\nt: it is\nt: so (confidence 0.5)\n\n"
        "# Recalled\n[2026-01-01 00:00] user: before\n\n"
        "# Recent\n[2026-01-01 00:00] user: hello"
    )
    assert set(context.left_out.values()) == {0}


def test_a_document_over_the_budget_is_left_out_and_said_to_be() -> None:
    context = assemble(b'{"a":"' + b"x" * 1000 + b'"}', [event(1, "hello")], [], [], 100)
    assert context.document is None
    assert context.left_out["working_memory"] == 1
    assert context.recent


def test_what_is_recent_is_not_recalled_as_well() -> None:
    context = assemble(None, [event(1)], [Hit(event(1), 0.9, {}), Hit(event(2), 0.8, {})], [], 1000)
    assert [hit.event.id for hit in context.recalled] == [event(2).id]


def test_a_recent_message_that_has_no_room_there_may_be_recalled() -> None:
    messages = [event(number, f"message {number} " + "x" * 100) for number in range(50)]
    context = assemble(None, messages, [Hit(messages[6], 0.9, {})], [], 500)
    assert [hit.event.id for hit in context.recalled] == [messages[6].id]
    assert messages[6] not in context.recent and messages[49] in context.recent
    assert context.left_out["recent"] == 50 - len(context.recent) - 1


def test_an_event_without_content_shows_its_payload() -> None:
    assert describe_event(event(1, None)) == '[2026-01-01 00:00] user: {"tool": "t"}'
