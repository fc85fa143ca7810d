"""How likeness in meaning and in words make one score, for events and facts alike.

The weights were found on conversations with labelled questions. Scores are fused, not ranks: a weak match on a common
phrase must not outrank a strong one in meaning, and the power takes from weak matches more than from strong ones.
"""

from __future__ import annotations

from typing import Any

Score = Any
"""A number, or an array of them: what comes in goes out."""
SEMANTIC = 1.0
KEYWORD = 4.0
TIME = 1.0
POWER = 1.5


def weigh(semantic: Score, keyword: Score) -> Score:
    """What a cosine and a keyword score from 0 to 1 are worth together, from -1 to the sum of both weights."""
    return SEMANTIC * semantic + KEYWORD * keyword**POWER


def scale(worth: Score, most: float = SEMANTIC + KEYWORD) -> Score:
    """The worth as a score, 1 at most, in the same order. Few hits are good in all respects: it rises early."""
    return worth * (1 + most) / (most * (1 + abs(worth)))
