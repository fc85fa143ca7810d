"""An export, read again: the same file is always the same turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory.exports import (
    EVENTS_A_TURN,
    BadExport,
    canonical,
    document,
    is_export,
    rows,
    survey,
    turns,
)

HEADER = {"kind": "export", "format": 1, "agent": "a", "position": "3.1-9"}
TIMES = {"started_at": "2026-01-01T00:00:00Z", "last_event_at": "2026-01-01T00:00:00Z"}


def event(number: int, position: str = "3.1-1", **more: Any) -> dict[str, Any]:
    return {
        "kind": "event", "id": f"id-{number}", "position": position, "index": 0, "type": "message", "content": "x",
        "at": "2026-01-01T00:00:00Z", "accepted_at": "2026-01-01T00:00:00Z", **more,
    }  # fmt: skip


def letter(body: Any) -> dict[str, Any]:
    return {"kind": "dead_letter", "id": "l", "accepted_at": "2026-01-02T00:00:00Z", "event": body, "session": "s"}


def file(*lines: dict[str, Any]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in (HEADER, *lines)]


def end(sessions: int = 0, events: int = 0, knowledge: int = 0, letters: int = 0) -> dict[str, Any]:
    return {"kind": "end", "sessions": sessions, "events": events, "knowledge": knowledge, "dead_letters": letters}


def test_events_of_one_position_are_one_turn() -> None:
    lines = file(event(1, session="s"), event(2, session="s"), event(3, "3.1-2"), end(0, 3))
    first, second = turns(lines, "b")
    assert (first.ids, second.ids) == (("id-1", "id-2"), ("id-3",))
    assert json.loads(first.body)["session"] == "s" and "session" not in json.loads(second.body)


def test_a_turn_is_never_larger_than_a_sidecar_takes() -> None:
    many = list(turns(file(*(event(number) for number in range(EVENTS_A_TURN + 1))), "b"))
    assert [len(turn.ids) for turn in many] == [EVENTS_A_TURN, 1]
    large = list(turns(file(*(event(number, content="x" * (1 << 20)) for number in range(3))), "b"))
    assert [len(turn.ids) for turn in large] == [1, 1, 1]


def test_a_key_follows_from_agent_and_ids_alone() -> None:
    def key(agent: str, *lines: dict[str, Any]) -> list[str]:
        return [turn.key for turn in turns(file(*lines), agent)]

    assert key("b", event(1)) == key("b", event(1, position="0.7-7"))
    assert len({*key("b", event(1)), *key("c", event(1)), *key("b", event(2)), *key("b", event(1), event(2))}) == 4


def test_a_payload_keeps_its_bytes() -> None:
    line = json.dumps(event(1)).encode().replace(b'"content": "x"', b'"payload": {"a":  1.50, "b": 1e999}')
    [turn] = turns([json.dumps(HEADER).encode(), line], "b")
    assert b'{"a":  1.50, "b": 1e999}' in turn.body


def test_a_dead_letter_keeps_the_time_of_its_acceptance() -> None:
    at = "2020-01-01T00:00:00Z"
    [one] = turns(file(letter({"content": "x"})), "b")
    [several] = turns(file(letter([{"content": "x", "at": at}, {"content": "y"}])), "b")
    [text] = turns(file(letter("no JSON")), "b")
    assert json.loads(one.body) == {"events": [{"at": "2026-01-02T00:00:00Z", "content": "x"}], "session": "s"}
    assert [event["at"] for event in json.loads(several.body)["events"]] == [at, "2026-01-02T00:00:00Z"]
    assert json.loads(text.body)["events"] == ["no JSON"]
    assert all(turn.dead for turn in (one, several, text))


def test_sources_of_knowledge_are_called_as_in_the_copy() -> None:
    facts = [{"kind": "knowledge", "fact": {"id": "k", "sources": ["id-1", "else"]}}, {"kind": "knowledge", "fact": {}}]
    lines = file({"kind": "session", "session": "s", **TIMES}, *facts, end(1, 0, 2))
    assert survey(lines).sources == {"id-1", "else"}
    session, *told = b"".join(rows(lines, {"id-1": "new"})).splitlines()
    assert json.loads(session)["session"] == "s"
    assert [json.loads(line)["fact"] for line in told] == [{"id": "k", "sources": ["new", "else"]}, {}]


def test_rows_come_in_blocks() -> None:
    facts = [{"kind": "knowledge", "fact": {"content": "x" * 300_000}} for _ in range(3)]
    assert [len(block.splitlines()) for block in rows(file(*facts), {})] == [1, 1, 1]


def test_a_document_stands_before_what_can_be_long() -> None:
    lines = file({"kind": "document", "version": "3.1-1", "expired": False, "document": {"v": 1}}, event(1))
    assert document(lines) == b'{"v": 1}'
    assert document([*file(event(1)), b"never read"]) is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (file(event(1)), "cut off"),
        (file(event(1), end()), "other lines"),
        (file(event(1), HEADER, end(0, 1)), "line 3"),
        ([b"{}\n"], "line 1"),
        ([b"\xff\n"], "line 1"),
        (file({"kind": "song"}), "line 2"),
        (file(end())[1:], "line 1"),
        ([json.dumps(HEADER | {"format": 2}).encode()], "line 1"),
    ],
)
def test_what_is_no_whole_export_says_where(lines: list[bytes], said: str) -> None:
    with pytest.raises(BadExport, match=said):
        survey(lines)


def test_a_conversation_is_no_export() -> None:
    assert is_export(file()[0])
    assert not is_export(b'{"id": 1, "at": "2026-01-01T00:00:00Z", "content": "x"}')
    assert not is_export(b"\xff") and not is_export(b"")


def test_metadata_has_one_spelling() -> None:
    spellings = b'{"b": 1e2, "a": [-0.0, 1.50]}', b'{"a":[0.0,1.50],"b":100}'
    assert {canonical(one) for one in spellings} == {b'{"a":[0.0,1.50],"b":100}'}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON))
def test_a_spelling_says_the_same(value: dict[str, Any]) -> None:
    assert json.loads(canonical(json.dumps(value).encode())) == value
