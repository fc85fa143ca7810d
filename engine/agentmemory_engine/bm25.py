"""BM25: how well texts match the terms of a query, as Robertson and Zaragoza have it ("The Probabilistic Relevance
Framework", 2009), as a share of the most that the query could score: scores of different queries, and those of vectors,
can then be held against each other. `postings` has the same over arrays, for many events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import log

from agentmemory_engine.terms import terms_of

K1 = 1.2
"""How soon a term that is repeated counts no more."""
_LOOKED_AT = 256
MOST_TERMS = 64
"""Of a query; of more, the rarest count."""
B = 0.75
"""How much a long text has to say a term more often."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A text as terms without their order: how often each stands in it, and how many there are."""

    counts: dict[str, int]
    length: int


def count_terms(text: str) -> Terms:
    """The terms of a text."""
    terms = terms_of(text)
    return Terms(dict(Counter(terms)), len(terms))


def weight(total: int, frequency: int) -> float:
    """The inverse document frequency: what a term is worth that occurs in so many of all texts."""
    return log(1 + (total - frequency + 0.5) / (frequency + 0.5))


def score_texts(query: Terms, texts: Sequence[Terms]) -> list[float]:
    """A score from 0 to 1 for each text, in order. 0: no term of the query."""
    if not texts:
        return []
    average = sum(text.length for text in texts) / len(texts) or 1.0
    frequencies = {term: sum(term in text.counts for text in texts) for term in islice(query.counts, _LOOKED_AT)}
    rarest = sorted(frequencies, key=lambda term: (frequencies[term], term))[:MOST_TERMS]
    weights = {term: weight(len(texts), frequencies[term]) for term in rarest}
    most = sum(weights.values()) * (K1 + 1)
    if not most:
        return [0.0] * len(texts)
    return [_score(text, weights, average) / most for text in texts]


def _score(text: Terms, weights: dict[str, float], average: float) -> float:
    norm = K1 * (1 - B + B * text.length / average)
    score = 0.0
    for term, worth in weights.items():
        count = text.counts.get(term)
        if count:
            score += worth * count * (K1 + 1) / (count + norm)
    return score
