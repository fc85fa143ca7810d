"""Durations and sizes as they are written in an AgentMemory: `90s`, `1h30m`, `7d`; `1048576`, `512Ki`, `1Mi`."""

from __future__ import annotations

import re
from typing import Any

_PART = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZE = re.compile(r"(\d{1,15})(|k|M|G|T|Ki|Mi|Gi|Ti)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Seconds(float):
    """A duration, in seconds."""


class Bytes(int):
    """A size, in bytes."""


def parse_duration(text: Any) -> Seconds:
    """`1h30m` as seconds. Raises ValueError."""
    if not isinstance(text, str) or _DURATION.fullmatch(text) is None:
        raise ValueError(f"{_shown(text)} is not a duration; write it like 500ms, 5s, 1h30m or 7d")
    return Seconds(sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


def parse_size(text: Any) -> Bytes:
    """`1Mi` as bytes; a whole number is bytes. Raises ValueError."""
    written = str(text) if isinstance(text, int) and not isinstance(text, bool) else text
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError(f"{_shown(text)} is not a size; write it like 1048576, 512Ki or 1Mi")
    return Bytes(int(match[1]) * _BYTES[match[2]])


def _shown(value: Any) -> str:
    return repr(value)[:40]
