"""When to try again: a decision, without clock or network."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long, and how often, a request is repeated. All in seconds.

    `budget` is the time from the first failure in which further tries may run; 0 means one try only. Pauses begin at
    `first`, double, stay below `longest`, and are shortened at random so that many clients do not come back at once.
    """

    budget: float = 30.0
    first: float = 0.05
    longest: float = 2.0

    def pause(self, failures: int, elapsed: float, retry_after: float | None = None) -> float | None:
        """Seconds to wait before the next try; None when it is time to give up.

        `failures` counts those so far, `elapsed` is the time since the first of them, `retry_after` is what the
        sidecar asked for.
        """
        backoff = min(self.longest, self.first * 2.0 ** min(failures - 1, 32)) * random.uniform(0.5, 1.0)
        pause = max(backoff, retry_after or 0.0)
        return pause if elapsed + pause < self.budget else None


NO_RETRIES = Retries(budget=0.0)
