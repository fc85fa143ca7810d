"""Distillation, the pure parts: a session as a model reads it, and what is taken of its answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.distillation.chat import read_prompt
from agentmemory_engine.distillation.errors import Nonsense
from agentmemory_engine.distillation.facts import prefix_of, read_facts
from agentmemory_engine.distillation.transcript import is_enough, make_part
from agentmemory_engine.distillation.worker import Bounds
from agentmemory_engine.hydrate import estimate_tokens
from agentmemory_engine.positions import Entry, Position

AT = datetime(2026, 1, 12, 9, 30, tzinfo=UTC)
SOURCES = {"e1": UUID(int=1), "e2": UUID(int=2)}
FACT = {
    "key": "unit price",
    "topic": " suppliers ",
    "content": "It asks 1.20.",
    "confidence": 0.5,
    "sources": ["e2", "e2"],
}


def event(number: int, content: str | None, payload: bytes | None = None) -> StoredEvent:
    return StoredEvent(
        id=UUID(int=number), position=Position(0, Entry(1, number)), index=0, type="message", role="user",
        content=content, payload=payload, metadata=None, session="s", at=AT, accepted_at=AT,
    )  # fmt: skip


def facts(text: str) -> list[object]:
    return list(read_facts(text, SOURCES, session="s", model="m"))


def test_what_is_packaged_is_what_is_asked_for() -> None:
    schema = json.loads(read_prompt("facts.schema.json"))
    (example,) = [line for line in read_prompt("facts.md").splitlines() if line.startswith("    {")]
    members = schema["properties"]["facts"]["items"]["required"]
    assert all(f'"{member}"' in read_prompt("facts.md") for member in members) and example
    assert schema["additionalProperties"] is False


@given(st.lists(st.text(max_size=600).filter(str.strip), min_size=1, max_size=12), st.integers(120, 600))
def test_a_part_keeps_to_its_tokens_and_tells_all_in_order(texts: list[str], tokens: int) -> None:
    rest = [event(number, text) for number, text in enumerate(texts, start=1)]
    told: list[str] = []
    while rest:
        part = make_part(rest, tokens)
        lines = [json.loads(line) for line in part.text.split("\n")]
        assert [line["event"] for line in lines] == list(part.sources)
        assert list(part.sources.values()) == [one.id for one in rest[: len(part)]]
        assert len(lines) == 1 or estimate_tokens(part.text) <= tokens
        told += [line["text"] for line in lines]
        assert part.last.entry == rest[len(part) - 1].position.entry
        rest = rest[len(part) :]
    whole = [one for one, text in zip(told, texts, strict=True) if one == text]
    assert len(whole) == len(texts) or any(estimate_tokens(text) + 40 > tokens for text in texts)


def test_an_event_that_is_too_long_is_cut_and_says_so() -> None:
    line, *_ = make_part([event(1, "y" * 10_000), event(2, "next")], 256).text.split("\n")
    told = json.loads(line)
    assert len(told["text"]) + told["left_out"] == 10_000 and estimate_tokens(line) <= 256


def test_what_has_no_content_is_told_by_its_payload() -> None:
    part = make_part([event(1, None, b'{"tool": "search", "found": 3}'), event(2, None, b"[1, 2]")], 999)
    assert [json.loads(line)["text"] for line in part.text.split("\n")] == ["search", "[1, 2]"]
    assert is_enough([event(1, "x" * 4000)], 999) and not is_enough([event(1, "x" * 3000)], 999)


@pytest.mark.parametrize(
    "text",
    [
        '{"facts": [%s]}', 'Sure! {"facts": [%s]} Anything else?', '```json\n{"facts": [%s]}\n```',
        'A {brace}, then\n```\n{"facts": [%s]}\n```', '{"facts": [%s]} and more', '{"more": 1, "facts": [%s]}',
    ],
)  # fmt: skip
def test_an_answer_is_found_in_the_words_around_it(text: str) -> None:
    (found,) = read_facts(text % json.dumps(FACT), SOURCES, session="s", model="m")
    assert (found.key, found.topic, found.sources) == (prefix_of("s") + "unit-price", "suppliers", [UUID(int=2)])
    assert facts('{"facts": []}') == []


@given(st.one_of(st.text(), st.text().map(json.dumps), st.text().map(lambda text: "{" + text + "}")))
def test_anything_else_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(Nonsense) as refused:
        facts(text + "secret" + text)
    assert "secret" not in str(refused.value)


def test_sessions_have_keys_of_their_own() -> None:
    assert prefix_of("a") != prefix_of("b") and prefix_of("x" * 256).startswith("distilled/")
    assert all(len(prefix_of(str(uuid4()))) == len(prefix_of("a")) for _ in range(3))


def test_rests_grow_to_a_bound() -> None:
    bounds = Bounds(first=30.0, longest=3600.0)
    assert [bounds.rest(attempts).total_seconds() for attempts in (1, 2, 3, 9, 99)] == [30, 60, 120, 3600, 3600]
