"""From the scores of all events of an agent to a ranking: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentmemory_engine.fusion import KEYWORD, SEMANTIC, TIME, scale, weigh
from agentmemory_engine.moments import Span
from agentmemory_engine.postings import Floats


def fuse(semantic: Floats | None, keyword: Floats | None, nearness: Floats | None) -> Floats:
    """Relevance, 1 at most; at least one of the first two is there. Vectors that point away make it less than 0."""
    if semantic is None or keyword is None:
        worth, most = (keyword if semantic is None else semantic), 1.0
        assert worth is not None
        if nearness is None:
            return worth
    else:
        worth, most = weigh(semantic, keyword), SEMANTIC + KEYWORD
    if nearness is not None:
        worth, most = worth + TIME * nearness, most + TIME
    found: Floats = scale(worth, most)
    return found


def nearness(at: Floats, spans: Sequence[Span]) -> Floats | None:
    """How near each time is to one of the spans, 1 inside; None where there is none."""
    best = None
    for span in spans:
        gap = np.maximum(0.0, np.maximum(span.start - at, at - span.end))
        one: Floats = np.exp(-gap / span.slack)
        best = one if best is None else np.maximum(best, one)
    return best


def recency(at: Floats, now: float, half_life: float) -> Floats:
    """1 now, a half after each half-life; what lies in the future counts as now."""
    found: Floats = 0.5 ** (np.maximum(0.0, now - at) / half_life)
    return found


def best(scores: Floats, allowed: NDArray[np.bool_], count: int, least: float) -> list[int]:
    """The places of the best scores that are allowed and not below `least`, best first; of equals, the newest first."""
    places = np.flatnonzero(allowed if least <= 0 else allowed & (scores >= least))
    if len(places) > count:
        floor = np.partition(scores[places], len(places) - count)[len(places) - count]
        places = places[scores[places] >= floor]
    order = np.lexsort((-places, -scores[places]))
    return [int(place) for place in places[order][:count]]


def diversify(
    ranked: Sequence[int],
    score: Callable[[int], float],
    terms: Callable[[int], Iterable[str]],
    *,
    share: float,
    count: int,
) -> list[int]:
    """Reorder so that what says the same as something before it comes later (maximal marginal relevance).

    `share` from 0 to 1 is how much that counts against relevance; how alike two are is how many of their terms they
    have in common.
    """
    waiting, chosen = list(ranked), list[int]()
    sets = {place: frozenset(terms(place)) for place in waiting}
    alike = dict.fromkeys(waiting, 0.0)
    while waiting and len(chosen) < count:
        pick = max(waiting, key=lambda place: (1 - share) * score(place) - share * alike[place])
        waiting.remove(pick)
        chosen.append(pick)
        for place in waiting:
            alike[place] = max(alike[place], _likeness(sets[place], sets[pick]))
    return chosen


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    joined = len(one | other)
    return len(one & other) / joined if joined else 1.0
