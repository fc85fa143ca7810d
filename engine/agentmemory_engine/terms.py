"""Text as the terms that keyword recall compares: words in small letters, without the commonest, by their stems."""

from __future__ import annotations

import re
import threading
from functools import lru_cache

from snowballstemmer import stemmer  # type: ignore[import-untyped]

_WORD = re.compile(r"[^\W_]+")
_LONGEST = 40
"""Characters; what is longer is no word but data, and a part of it is as good a key as the whole."""

# Words of English that say how a sentence is built and not what it is about.
_COMMON = frozenset(
    _WORD.findall(
        """
    a about all am an and any are as at be because been being but by can could d did do does doing done don down during
    each few for from had has have having he her here hers him his how i if in into is it its itself just ll m me more
    most my no nor not now of off on once only or other our ours out over own re s same shall she should so some such t
    than that the their theirs them then there these they this those through to too under until up us ve very was we
    were what when where which while who whom whose why will with would you your yours
    """
    )
)
_LONGEST_TEXT = 100_000
"""Characters; what stands behind them is data, and would cost more than it is worth."""
_own = threading.local()
"""A stemmer keeps what it works on in itself: each thread has one of its own."""


def terms_of(text: str) -> list[str]:
    """The terms of a text in their order, each as often as it occurs."""
    words = _WORD.findall(text[:_LONGEST_TEXT].lower())
    return [_term(word[:_LONGEST]) for word in words if word not in _COMMON]


@lru_cache(maxsize=32_768)
def _term(word: str) -> str:
    if not hasattr(_own, "stemmer"):
        _own.stemmer = stemmer("english")
    return str(_own.stemmer.stemWord(word))
