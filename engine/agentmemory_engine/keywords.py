"""Keywords: how well texts match the words of a query, by BM25 over all of an agent's facts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")
_SATURATION = 1.2
"""How soon a word that is repeated counts no more."""
_LENGTH = 0.75
"""How much a long text has to say a word more often."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A text as words without their order: how often each stands in it, and how many there are."""

    counts: dict[str, int]
    length: int


def terms_of(text: str) -> Terms:
    """The words of a text. `supplier.acme` is two of them."""
    words = [_stem(word) for word in _WORD.findall(text.casefold())]
    return Terms(dict(Counter(words)), len(words))


def _stem(word: str) -> str:
    """Singular and plural of an English word are one."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def score_keywords(query: Terms, texts: Sequence[Terms]) -> list[float]:
    """A score from 0 to 1 for each text, in order: the part of the query's weight that it holds. 0: no word of it."""
    if not texts:
        return []
    average = sum(text.length for text in texts) / len(texts) or 1.0
    weights = {word: _weight(sum(word in text.counts for text in texts), len(texts)) for word in query.counts}
    most = sum(weights.values()) * (_SATURATION + 1)
    if not most:
        return [0.0] * len(texts)
    return [_score(text, weights, average) / most for text in texts]


def _weight(holding: int, all_texts: int) -> float:
    """What a word is worth: the fewer texts hold it, the more."""
    return math.log(1 + (all_texts - holding + 0.5) / (holding + 0.5))


def _score(text: Terms, weights: dict[str, float], average: float) -> float:
    norm = _SATURATION * (1 - _LENGTH + _LENGTH * text.length / average)
    score = 0.0
    for word, weight in weights.items():
        count = text.counts.get(word)
        if count:
            score += weight * count * (_SATURATION + 1) / (count + norm)
    return score
