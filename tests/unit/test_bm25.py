"""Keyword scores: rare words weigh more, long texts less, and no word is no score."""

from __future__ import annotations

import math

import pytest

from agentmemory_engine.bm25 import count_terms, score_texts


def scores(query: str, *texts: str) -> list[float]:
    return score_texts(count_terms(query), [count_terms(text) for text in texts])


def test_a_rare_word_is_worth_more_than_a_common_one() -> None:
    rare, common, neither = scores("acme price", "acme word", "price word", "nothing word")
    assert rare == common > neither == 0
    rare, common, *_ = scores("acme price", "acme word", "price word", "price thing", "price")
    assert rare > common > 0


def test_a_word_is_worth_more_in_a_short_text_and_less_each_time_it_is_repeated() -> None:
    short, long, twice, thrice = scores("acme", "acme", "acme " + "x " * 20, "acme acme", "acme acme acme")
    assert long < short < twice < thrice < 1
    assert thrice - twice < twice - short


def test_the_score_is_what_the_formula_says() -> None:
    found, other = scores("price", "price of steel", "it rains")
    weight = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    norm = 1.2 * (1 - 0.75 + 0.75 * 2 / 1.5)
    assert found == pytest.approx(weight * 2.2 / (1 + norm) / (weight * 2.2)) and other == 0


def test_there_may_be_nothing_to_compare() -> None:
    assert scores("price") == []
    assert scores("?", "price") == [0.0]
    assert scores("price", "?") == [0.0]
