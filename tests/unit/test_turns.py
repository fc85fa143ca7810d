"""Turns: what is refused before anything is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.errors import InvalidInput, UnstorableText
from agentmemory_engine.turns import check_text, encode_events, fingerprint, parse_turn


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b'{"events": [', "truncated"),
        (b"[]", "object"),
        (b"{}", "at least one event"),
        (b'{"events": []}', "at least one event"),
        (b'{"events": [{}]}', r"events\[0\] has neither"),
        (b'{"events": [{"content": 1}]}', r"\$.events\[0\].content"),
        (b'{"events": [{"content": NaN}]}', "malformed"),
        (b'{"events": [{"content": "x", "payload": NaN}]}', "malformed"),
        (b'{"events": [{"content": "x", "payload": Infinity}]}', "malformed"),
        (b'{"events": [{"content": "x", "metadata": [1]}]}', "not a JSON object"),
        (b'{"events": [{"content": "x", "at": "2026-01-01T00:00:00"}]}', "timezone"),
        (b'{"events": [{"content": "x", "at": "yesterday"}]}', "RFC3339"),
        (b'{"events": [{"content": "x", "at": "0001-01-01T00:00:00+14:00"}]}', "years 1 to 9999"),
        (b'{"events": [{"content": "x", "at": "9999-12-31T23:59:59-12:00"}]}', "years 1 to 9999"),
        (b'{"events": [{"content": "x", "colour": "red"}]}', "unknown field `colour`"),
        (b'{"events": [{"content": "\xff"}]}', "utf-8"),
        (b'{"events": [{"content": "x", "payload": "\xff"}]}', "utf-8"),
        (b'{"session": "", "events": [{"content": "x"}]}', "length >= 1"),
        (b'{"working_memory": {}}', "exactly one"),
        (b'{"working_memory": {"set": {}, "merge": {}}}', "exactly one"),
        (b'{"events": [' + b'{"content": "x"},' * 1000 + b'{"content": "x"}]}', "length <= 1000"),
        (b'{"events": [{"content": "x", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", "nested"),
    ],
)
def test_a_bad_body_is_refused_with_what_is_wrong(body: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_turn(body)


@pytest.mark.parametrize(
    "text", [r"\u0000", r"a\u0000b", r"\ud800", r"\udc00\ud800", r"\uD83Dx", r"\\\u0000"], ids=lambda text: text
)
@pytest.mark.parametrize(
    "place",
    [
        '{"content": "%s"}',
        '{"content": "x", "payload": {"k": ["%s"]}}',
        '{"content": "x", "metadata": {"%s": 1}}',
        '{"content": "x", "role": "%s"}',
    ],
)
def test_text_that_postgres_cannot_store_is_refused_wherever_it_stands(text: str, place: str) -> None:
    body = '{"events": [' + place.replace("%s", text) + "]}"
    with pytest.raises(InvalidInput):
        parse_turn(body.encode())


@pytest.mark.parametrize("text", [r"\\u0000", r"\\ud800", r"\ud83d\ude00", "plain", r"\\\\u0000"])
def test_text_that_only_looks_like_it_is_taken(text: str) -> None:
    turn = parse_turn(b'{"events": [{"content": "' + text.encode() + b'"}]}')
    assert turn.events[0].content == json.loads(f'"{text}"')


def test_brackets_inside_strings_are_no_nesting() -> None:
    parse_turn(b'{"events": [{"content": "' + b'[{\\"' * 1000 + b'"}]}')
    deep = b"[" * 190 + b'"]"' + b"]" * 190
    parse_turn(b'{"events": [{"payload": ' + deep + b"}]}")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_unstorable_text_is_found_exactly_where_it_is(value: Any) -> None:
    body = json.dumps(value).encode()
    try:
        check_text(body)
        refused = False
    except UnstorableText:
        refused = True
    assert refused == ("\\u0000" in _strings(value))


def _strings(value: Any) -> str:
    """All strings of a value, with NUL made visible."""
    return repr(value).replace("\\x00", "\\u0000")


def test_payload_and_metadata_stand_in_the_journal_as_they_were_sent() -> None:
    turn = parse_turn(b'{"events": [{"payload": {"b": 1.50, "a": [1e2]}, "metadata": { "n" : 1 }}]}')
    events, window = encode_events(turn)
    assert b'"payload":{"b": 1.50, "a": [1e2]}' in events
    assert [index for index, _ in window] == [0]


def test_a_body_is_the_same_body_whatever_its_white_space() -> None:
    one = parse_turn(b'{"session": "s", "events": [{"content": "x"}]}')
    same = parse_turn(b'{"events":[{"content":"x"}],"session":"s"}')
    other = parse_turn(b'{"session": "s", "events": [{"content": "y"}]}')
    prints = [fingerprint(turn, encode_events(turn)[0]) for turn in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    "body",
    [
        b'{"session": "t", "events": [{"content": "x"}]}',
        b'{"events": [{"content": "x"}]}',
        b'{"session": "s", "events": [{"content": "x"}, {"content": "x"}]}',
        b'{"session": "s", "events": [{"content": "x", "payload": null}]}',
        b'{"session": "s", "events": [{"content": "x"}], "working_memory": {"set": {}}}',
        b'{"session": "s", "events": [{"content": "x"}], "working_memory": {"merge": {}}}',
        b'{"session": "s", "events": [{"content": "x"}], "working_memory": {"delete": true}}',
    ],
)
def test_every_part_of_a_body_counts(body: bytes) -> None:
    one, other = parse_turn(b'{"session": "s", "events": [{"content": "x"}]}'), parse_turn(body)
    assert fingerprint(one, encode_events(one)[0]) != fingerprint(other, encode_events(other)[0])
