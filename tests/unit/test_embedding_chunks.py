"""Splitting long text: nothing is left out, nothing is longer than the model reads."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentmemory_engine.embedding.chunks import LONGEST, OVERLAP, split

PROSE = " ".join(
    f"At minute {minute} the crew reported a bang and a drop on main bus B. Houston asked them to say it again, please!"
    for minute in range(60)
)

# Long texts out of few choices: pieces that are repeated, of every kind that is split differently.
pieces = st.sampled_from(
    ["word ", "Sentence. ", "\n", "\n\n", "   ", "31415926", "unbroken", "{'a': 1}, ", "地面控制。", "🚀"]
)
stretches = st.builds(lambda piece, times: piece * times, pieces, st.integers(1, 400))
texts = st.one_of(st.text(max_size=50), st.lists(st.one_of(stretches, st.text(max_size=20)), max_size=8).map("".join))


@given(texts)
@example("x" * 5000)
@example("9" * 5000)
@example(" " * 5000 + "end")
@example("." + "9" * 3000)
def test_every_character_that_says_something_is_in_a_chunk(text: str) -> None:
    covered = 0
    for chunk in split(text):
        while text[covered : covered + 1].isspace():
            covered += 1
        start = text.rfind(chunk, 0, covered + len(chunk))
        assert start >= 0, "a chunk is not a piece of the text, or leaves a gap before it"
        covered = max(covered, start + len(chunk))
    assert not text[covered:].strip()


@given(texts)
def test_chunks_are_short_not_blank_and_none_only_for_blank_text(text: str) -> None:
    chunks = split(text)
    assert all(chunk.strip() and len(chunk) <= LONGEST for chunk in chunks)
    assert bool(chunks) == bool(text.strip())


@given(texts)
def test_the_number_of_chunks_is_bounded(text: str) -> None:
    assert len(split(text)) <= 1 + len(text) // 60


def test_a_short_text_is_one_chunk_as_it_is() -> None:
    assert split(" As it is.\n") == [" As it is.\n"]


def test_prose_is_cut_after_sentences_and_overlaps_at_a_word() -> None:
    for chunk, following in pairwise(split(PROSE)):
        assert chunk.rstrip()[-1] in ".!"
        assert 600 < len(chunk) <= LONGEST
        shared = next(n for n in range(len(chunk), 0, -1) if following.startswith(chunk[-n:]))
        assert OVERLAP - 20 <= shared <= OVERLAP
        assert chunk[-shared - 1] == " "


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a" * 400 + ".\n\n" + "b " * 50 + "\n" + "b " * 50 + "c. " + "d " * 300, "\n\n"),
        ("a" * 500 + "\n" + "b " * 50 + "c. " + "d " * 300, "\n"),
        ("a" * 500 + '." ' + "b " * 300, '." '),
        ("a " * 100 + "地面控制。" * 60, "。"),
        ("a" * 500 + " " + "b" * 2000, " "),
    ],
)
def test_the_best_boundary_is_taken(text: str, end: str) -> None:
    assert split(text)[0].endswith(end)


def test_dense_text_makes_shorter_chunks() -> None:
    assert max(map(len, split("地面控制中心" * 200))) <= 254
    assert max(map(len, split('{"a":[1,2,3]},' * 200))) < 400
