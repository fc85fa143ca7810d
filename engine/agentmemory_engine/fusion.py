"""How likeness in meaning and in words make one score, for events and facts alike.

The weights were found on conversations with labelled questions. Scores are fused, not ranks: a weak match on a common
phrase must not outrank a strong one in meaning, and the power takes from weak matches more than from strong ones.
"""

from __future__ import annotations

SEMANTIC = 1.0
KEYWORD = 4.0
TIME = 1.0
POWER = 1.5


def fuse_one(semantic: float, keyword: float) -> float:
    """From a cosine and a keyword score, 1 at most."""
    return float(SEMANTIC * semantic + KEYWORD * keyword**POWER) / (SEMANTIC + KEYWORD)
