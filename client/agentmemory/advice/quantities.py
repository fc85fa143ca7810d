"""Durations and sizes, as an AgentMemory has them: read from `1h30m` and `4Ki`, and written so."""

from __future__ import annotations

import re
from typing import Any

_PART = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZE = re.compile(r"(\d{1,15})(Ki|Mi|Gi|Ti)?")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


class Seconds(float):
    """A duration, in seconds."""


class Bytes(int):
    """A size, in bytes."""


def parse_seconds(text: Any) -> Seconds:
    """`1h30m` as seconds. Raises ValueError."""
    if not isinstance(text, str) or _DURATION.fullmatch(text) is None:
        raise ValueError(f"{str(text)[:40]!r} is not a duration; write it like 5s, 1h30m or 90d")
    return Seconds(sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


def parse_bytes(text: Any) -> Bytes:
    """`4Ki` as bytes; a whole number is bytes. Raises ValueError."""
    match = _SIZE.fullmatch(str(text)) if not isinstance(text, bool) else None
    if match is None:
        raise ValueError(f"{str(text)[:40]!r} is not a size; write it like 350, 4Ki or 8Gi")
    return Bytes(int(match[1]) * _BYTES[match[2] or ""])


def write_seconds(seconds: float) -> str:
    """In the largest unit that divides it."""
    whole = round(seconds * 1000)
    units = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
    return next(f"{whole // size}{unit}" for unit, size in units if whole % size == 0)


def write_bytes(size: float) -> str:
    """For a person: three digits at most."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def round_up(size: float, *, least: int) -> str:
    """As Kubernetes takes it: at least `least` bytes, then in steps of a power of two from 1 Mi on, whole Gi above."""
    asked = max(float(least), size)
    step = float(1 << 20)
    while step < asked and step < 1 << 30:
        step *= 2
    whole = -(-asked // step) * step
    return f"{whole / (1 << 30):.0f}Gi" if whole % (1 << 30) == 0 else f"{whole / (1 << 20):.0f}Mi"
