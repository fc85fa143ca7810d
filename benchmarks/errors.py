"""What can go wrong in a run."""

from __future__ import annotations


class BenchmarkFailed(Exception):
    """A measurement could not be made; the message says which, and what was answered instead."""
