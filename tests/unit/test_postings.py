"""The keyword index against a ranking that goes through all events for each query, as anybody would write it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import log
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.bm25 import K1, B
from agentmemory_engine.postings import OWN, Indexed, Postings
from agentmemory_engine.terms import _term, terms_of

WORDS = ["ab", "cd", "ef", "gh", "ij"]
TERMS = st.lists(st.sampled_from(WORDS), max_size=6)
EVENTS = st.lists(st.tuples(TERMS, st.sampled_from(["one", "two", None])), max_size=12)


def events_of(given: Sequence[tuple[list[str], str | None]]) -> list[Indexed]:
    return [
        Indexed(number.to_bytes(16, "big"), float(number), "message", None, session, terms)
        for number, (terms, session) in enumerate(given)
    ]


def expected(events: Sequence[Indexed], query: Sequence[str]) -> list[float]:
    """BM25 of each event alone, and with the one before it in its session, as a share of the most there is."""
    alone = [list(event.terms) for event in events]
    joined = [
        terms + (alone[place - 1] if place and events[place - 1].session == events[place].session else [])
        for place, terms in enumerate(alone)
    ]
    wanted = set(query)
    most = sum(weight(alone, term) for term in wanted) * (K1 + 1)
    if not most:
        return [0.0] * len(events)
    own, both = bm25(alone, wanted), bm25(joined, wanted)
    return [(OWN * one + (1 - OWN) * other) / most for one, other in zip(own, both, strict=True)]


def weight(documents: Sequence[Sequence[str]], term: str) -> float:
    frequency = sum(term in document for document in documents)
    return log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))


def bm25(documents: Sequence[Sequence[str]], wanted: set[str]) -> list[float]:
    mean = sum(map(len, documents)) / max(1, len(documents)) or 1.0
    found = []
    for document in documents:
        score = 0.0
        for term in wanted:
            count = document.count(term)
            score += weight(documents, term) * count * (K1 + 1) / (count + K1 * (1 - B + B * len(document) / mean))
        found.append(score)
    return found


@given(given=EVENTS, query=TERMS)
def test_scores_are_those_of_an_exhaustive_ranking(given: list[tuple[list[str], str | None]], query: list[str]) -> None:
    events = events_of(given)
    index = Postings()
    index.add(events)
    scores, holds = index.scores(query)
    assert list(scores) == pytest.approx(expected(events, query), abs=1e-12)
    assert list(holds) == [bool(set(query) & set(event.terms)) for event in events]


@given(given=EVENTS, cut=st.integers(0, 12), query=TERMS)
def test_what_is_taken_back_leaves_no_trace(
    given: list[tuple[list[str], str | None]], cut: int, query: list[str]
) -> None:
    events = events_of(given)
    index = Postings()
    index.add(events[:cut])
    before = index.size
    index.add(events[cut:])
    index.find(b"")
    index.drop_last(events[cut:])
    assert (len(index), len(index.columns), index.size) == (len(events[:cut]), len(events[:cut]), before)
    assert list(index.scores(query)[0]) == pytest.approx(expected(events[:cut], query), abs=1e-12)
    index.add(events[cut:])
    assert list(index.scores(query)[0]) == pytest.approx(expected(events, query), abs=1e-12)


@given(given=EVENTS, cut=st.integers(0, 12), late=st.integers(0, 4))
def test_ids_are_found_however_many_are_sorted_in(
    given: list[tuple[list[str], str | None]], cut: int, late: int
) -> None:
    events = events_of(given)
    everything = b"".join(event.id for event in events)
    with patch("agentmemory_engine.postings._LATE", late):
        index = Postings()
        index.add(events[:cut])
        index.find(everything)
        index.add(events[cut:])
        assert list(index.find(everything)) == list(range(len(events)))
        index.drop_last(events[cut:])
        kept = len(events[:cut])
        assert list(index.find(everything)) == [*range(kept), *([-1] * (len(events) - kept))]


@given(given=EVENTS, wanted=st.lists(st.integers(0, 15), max_size=8))
def test_events_are_found_by_their_ids(given: list[tuple[list[str], str | None]], wanted: list[int]) -> None:
    events = events_of(given)
    index = Postings()
    index.add(events)
    ids = b"".join(number.to_bytes(16, "big") for number in wanted)
    assert list(index.find(ids)) == [number if number < len(events) else -1 for number in wanted]


def test_ids_that_end_in_zeros_are_ids_too() -> None:
    index = Postings()
    index.add([Indexed(b"\1" + bytes(15), 0.0, "message", None, None, [])])
    assert list(index.find(b"\1" + bytes(15) + b"\1" + bytes(14) + b"\1")) == [0, -1]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The batteries of the LM", ["batteri", "lm"]),
        ("battery battery", ["batteri", "batteri"]),
        ("it's 21:38, over", ["21", "38"]),
        ("Zürich naïve", ["zürich", "naïv"]),
        ("snake_case", ["snake", "case"]),
        ("and of the", []),
        ("x" * 1000, ["x" * 40]),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert terms_of(text) == terms


def test_threads_take_text_apart_without_one_another() -> None:
    ends = ("ally", "ations", "ized", "ing")
    words = [f"{start}{end}" for start in ("nation", "conspir", "organ", "relat", "gener") for end in ends]
    alone = {word: terms_of(word) for word in words}

    def work(_: int) -> bool:
        _term.cache_clear()
        return all(terms_of(word) == alone[word] for word in words * 40)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(24)))
