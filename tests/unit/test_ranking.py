"""From scores to a ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine import ranking
from agentmemory_engine.fusion import scale
from agentmemory_engine.moments import Span

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), max_size=30)


def test_a_weak_match_on_words_does_not_drown_meaning() -> None:
    near_in_meaning, common_phrase, strong_match = 0, 1, 2
    semantic = np.array([0.5, 0.3, 0.3])
    keyword = np.array([0.0, 0.1, 0.6])
    fused = ranking.fuse(semantic, keyword, None)
    assert sorted(range(3), key=lambda place: -fused[place]) == [strong_match, near_in_meaning, common_phrase]
    assert ranking.fuse(None, keyword, None) == pytest.approx(keyword)
    assert ranking.fuse(semantic, None, None) == pytest.approx(semantic)


def test_what_is_as_good_as_can_be_scores_one() -> None:
    one = np.ones(1)
    assert ranking.fuse(one, one, one) == pytest.approx(one)


def test_nearness_ends_gently() -> None:
    at = np.array([0.0, 90.0, 100.0, 200.0, 210.0, 1e9])
    found = ranking.nearness(at, [Span(100.0, 200.0, 10.0), Span(0.0, 0.0, 1.0)])
    assert found is not None
    assert found == pytest.approx([1.0, np.exp(-1), 1.0, 1.0, np.exp(-1), 0.0])
    assert ranking.nearness(at, []) is None


def test_recency_is_halved_by_each_half_life() -> None:
    assert ranking.recency(np.array([100.0, 90.0, 80.0, 300.0]), 100.0, 10.0) == pytest.approx([1.0, 0.5, 0.25, 1.0])


@given(scores=SCORES, allowed=st.lists(st.booleans(), min_size=30, max_size=30), count=st.integers(1, 12),
       least=st.sampled_from([0.0, 0.25, 2.0]))  # fmt: skip
def test_the_best_are_those_of_a_whole_sort(scores: list[float], allowed: list[bool], count: int, least: float) -> None:
    places = [place for place, score in enumerate(scores) if allowed[place] and score >= least]
    expected = sorted(places, key=lambda place: (-scores[place], -place))[:count]
    assert ranking.best(np.array(scores), np.array(allowed[: len(scores)], np.bool_), count, least) == expected


def test_what_repeats_an_earlier_hit_is_put_back() -> None:
    said = {0: "the tank lost pressure", 1: "the tank lost pressure", 2: "a fan was switched on", 3: "lunch"}
    score = {0: 0.9, 1: 0.89, 2: 0.8, 3: 0.1}

    def order(share: float) -> list[int]:
        return ranking.diversify([0, 1, 2, 3], score.__getitem__, lambda one: said[one].split(), share=share, count=3)

    assert order(0.0) == [0, 1, 2]
    assert order(0.3) == [0, 2, 1]
    assert order(0.9) == [0, 2, 3]


@given(one=st.floats(-1, 5), other=st.floats(-1, 5))
def test_a_score_keeps_the_order_of_what_it_is_made_of(one: float, other: float) -> None:
    assert (scale(one) < scale(other)) <= (one < other)
    assert scale(5.0) == pytest.approx(1.0)
    assert scale(0.0) == 0.0
