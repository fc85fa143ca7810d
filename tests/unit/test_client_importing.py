"""Lines of a conversation become the same turns in every run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory.importing import BYTES_A_BLOCK, BadLine, ImportedTurn, LineReader, fingerprint, turns
from agentmemory.models import Event, NewEvent

GOOD = {"id": 7, "at": "1970-04-11T19:12:50Z", "session": "day-1", "speaker": "lcc", "content": "Lift-off."}
texts = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=20)


def lines(*documents: Any) -> list[bytes]:
    return [json.dumps(document).encode() + b"\n" for document in documents]


def make_turns(file: Sequence[bytes], **options: Any) -> list[ImportedTurn]:
    return list(turns(LineReader().read(file), agent="a", **options))


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    spoken = draw(st.lists(st.tuples(st.sampled_from(["s1", "s2"]), texts), min_size=1, max_size=40))
    return lines(
        *(
            GOOD | {"id": number, "session": session, "content": content}
            for number, (session, content) in enumerate(spoken)
        )
    )


def test_a_line_is_an_event() -> None:
    (turn,) = make_turns(lines(GOOD | {"confidence": 0.5}))
    assert turn.session == "day-1"
    assert turn.events == [
        NewEvent(
            role="lcc",
            content="Lift-off.",
            at=datetime(1970, 4, 11, 19, 12, 50, tzinfo=UTC),
            payload={"confidence": 0.5},
            metadata={"import_id": 7, "speaker": "lcc"},
        )
    ]


def test_a_line_may_do_without_session_and_speaker() -> None:
    (turn,) = make_turns(lines({"id": "x", "at": "1970-04-11T19:12:50+02:00", "content": ""}))
    (event,) = turn.events
    assert (turn.session, event.role, event.metadata) == (None, None, {"import_id": "x"})


def test_a_byte_order_mark_empty_lines_and_a_last_line_without_its_end_are_fine() -> None:
    first, second = lines(GOOD, GOOD | {"id": 8})
    found = list(LineReader().read([b"\xef\xbb\xbf" + first, b"\r\n", b"  \n", second.rstrip()]))
    assert [one.number for one in found] == [1, 4]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id": 1', "no JSON object"),
        (b"[1]", "array"),
        (b"NaN", "no JSON object"),
        (b'{"id": 1, "content": "\xff"}', "no JSON object"),
        (json.dumps(GOOD)[:-1].encode() + b', "more": ' + b"[" * 5000 + b"]" * 5000 + b"}", "no JSON object"),
        (json.dumps(GOOD)[:-1].encode() + b', "more": ' + b"[" * 970 + b"]" * 970 + b"}", "no JSON object"),
        (json.dumps({**GOOD, "id": None}).encode(), "`id`"),
        (json.dumps({**GOOD, "id": 1.5}).encode(), "`id`"),
        (json.dumps({**GOOD, "id": ""}).encode(), "`id`"),
        (json.dumps({**GOOD, "at": "yesterday"}).encode(), "`at`"),
        (json.dumps({**GOOD, "at": "1970-04-11T19:12:50"}).encode(), "timezone"),
        (json.dumps({**GOOD, "at": "1970-02-30T00:00:00Z"}).encode(), "`at`"),
        (json.dumps({**GOOD, "content": 5}).encode(), "`content`"),
        (json.dumps({**GOOD, "session": "x" * 257}).encode(), "`session`"),
        (json.dumps({**GOOD, "speaker": "x" * 65}).encode(), "`speaker`"),
        (json.dumps({**GOOD, "content": "a\x00b"}).encode(), "cannot be stored"),
        (json.dumps({**GOOD, "more": [{"a\x00": 1}]}).encode(), "cannot be stored"),
        (json.dumps({**GOOD, "content": "\ud800"}).encode(), "no JSON object"),
        (json.dumps({name: value for name, value in GOOD.items() if name != "id"}).encode(), "`id`"),
    ],
)
def test_a_bad_line_is_named(line: bytes, why: str) -> None:
    with pytest.raises(BadLine, match=why) as caught:
        list(LineReader().read([*lines(GOOD | {"id": "first"}), line]))
    assert caught.value.number == 2
    assert str(caught.value).startswith("line 2: ")


def test_the_same_id_twice_names_both_lines() -> None:
    with pytest.raises(BadLine, match="line 3: the id '7' stands on line 1 already"):
        list(LineReader().read(lines(GOOD, GOOD | {"id": 8}, GOOD)))


def test_bad_lines_are_left_out_on_request() -> None:
    reader = LineReader(skip_bad=True)
    found = list(reader.read([*lines(GOOD), b"{", *lines(GOOD, GOOD | {"id": 8})]))
    assert [one.number for one in found] == [1, 4]
    assert [bad.number for bad in reader.bad] == [2, 3]


@given(conversations(), st.integers(min_value=1, max_value=10))
def test_every_line_is_in_one_turn_in_order(file: list[bytes], size: int) -> None:
    made = make_turns(file, lines_a_turn=size)
    ids = [event.metadata["import_id"] for turn in made for event in turn.events if event.metadata]
    assert ids == list(range(len(file)))
    assert all(len(turn.events) <= size for turn in made)
    assert [turn.last for turn in made] == sorted(turn.last for turn in made)


@given(conversations(), st.integers(min_value=1, max_value=10))
def test_the_same_file_gives_the_same_turns_and_no_two_of_them_one_key(file: list[bytes], size: int) -> None:
    made = make_turns(file, lines_a_turn=size)
    assert made == make_turns(file, lines_a_turn=size)
    assert len({turn.key for turn in made}) == len(made)
    assert all(turn.key.isascii() and len(turn.key) <= 255 for turn in made)


@given(conversations(), texts)
def test_another_content_is_another_key(file: list[bytes], content: str) -> None:
    changed = json.loads(file[0]) | {"content": content}
    same = changed == json.loads(file[0])
    first, second = make_turns(file)[0], make_turns([*lines(changed), *file[1:]])[0]
    assert (first.key == second.key) == same


def test_a_turn_is_of_one_session_and_one_agent() -> None:
    file = lines(GOOD, GOOD | {"id": 8, "session": "day-2"}, GOOD | {"id": 9})
    assert [turn.session for turn in make_turns(file)] == ["day-1", "day-2", "day-1"]
    ours = {turn.key for turn in make_turns(file)}
    theirs = {turn.key for turn in turns(LineReader().read(file), agent="b")}
    assert ours.isdisjoint(theirs)


@given(texts, st.none() | st.text("xyz", min_size=1, max_size=5), st.sampled_from(["Z", "+05:30", ".123456-08:00"]))
def test_a_line_is_known_by_the_event_that_it_became(content: str, speaker: str | None, zone: str) -> None:
    line = {"id": 7, "at": f"1970-04-11T19:12:50{zone}", "content": content, "speaker": speaker, "more": 1e2}
    (turn,) = make_turns(lines(line))
    (event,) = turn.events
    stored = msgspec.json.encode({**msgspec.to_builtins(event), "id": "e1", "position": "3.1-7", "index": 0})
    back = msgspec.json.decode(stored, type=Event)
    assert event.metadata is not None
    back.at = back.at.astimezone(UTC)
    assert fingerprint(None, back) == fingerprint(None, event)
    back.metadata = event.metadata | {"import_id": 8}
    assert fingerprint(None, back) != fingerprint(None, event)
    assert fingerprint("day-1", event) != fingerprint(None, event)


def test_long_lines_do_not_pile_up_in_one_turn() -> None:
    file = lines(*(GOOD | {"id": number, "content": "x" * (BYTES_A_BLOCK // 3)} for number in range(9)))
    assert max(len(turn.events) for turn in make_turns(file)) <= 3
