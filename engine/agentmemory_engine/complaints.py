"""Trouble that lasts is said once, then at growing intervals, so that an outage does not flood the log."""

from __future__ import annotations

import logging
import time

_FIRST = 30.0
_LONGEST = 1800.0
_DISTINCT = 50


class Complaints:
    """What one part of the program has to say about its trouble, to one logger."""

    def __init__(self, logger: logging.Logger, topic: str) -> None:
        self._logger = logger
        self._topic = topic
        self._said: dict[str, tuple[float, float]] = {}
        """By reason: when it is said again (monotonic), and the interval after that."""

    def say(self, reason: object) -> None:
        """Log a warning, unless the same reason was given a short time ago."""
        text, now = str(reason), time.monotonic()
        due, interval = self._said.get(text, (now, _FIRST))
        if now < due:
            return
        if len(self._said) >= _DISTINCT:
            self._said.clear()
        self._said[text] = now + interval, min(2 * interval, _LONGEST)
        self._logger.warning("%s: %s", self._topic, text)

    def end(self) -> None:
        """The trouble is over: the next of the same kind is news."""
        if self._said:
            self._said.clear()
            self._logger.info("%s: no longer", self._topic)
