"""When a process that failed may be started again."""

from __future__ import annotations

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class Restarts:
    """At once after the first failure, then after pauses that double, until it has worked again. Times in seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._not_before = 0.0

    def worked(self) -> None:
        """It did what it is for."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """It could not be started, or ended, or did not answer."""
        self._failures += 1
        doublings = min(self._failures - 2, 16)
        pause = min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE) if self._failures > 1 else 0.0
        self._not_before = now + pause

    def wait(self, now: float) -> float:
        """How long it has to stay down yet; 0 when it may be started."""
        return max(0.0, self._not_before - now)
