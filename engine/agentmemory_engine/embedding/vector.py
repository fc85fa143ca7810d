"""Vectors, as pgvector's `halfvec` travels in binary.

Big-endian: the number of dimensions and a zero, two bytes each, then the components as halves.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

Vector = bytes

MAX_DIMENSIONS = 16_000
"""What a `halfvec` can hold."""

_HEADER = struct.Struct(">HH")


def dimension_of(vector: Vector) -> int:
    """How many dimensions. Raises ValueError when these bytes are no vector."""
    if len(vector) < _HEADER.size:
        raise ValueError(f"{len(vector)} bytes are too few for a vector")
    dimensions, unused = _HEADER.unpack_from(vector)
    if unused != 0 or len(vector) != _HEADER.size + 2 * dimensions:
        raise ValueError(f"{len(vector)} bytes are not a vector of {dimensions} dimensions")
    return int(dimensions)


def to_floats(vector: Vector) -> list[float]:
    """Its components. Raises ValueError when these bytes are no vector."""
    return list(struct.unpack_from(f">{dimension_of(vector)}e", vector, _HEADER.size))


def from_floats(values: Sequence[float]) -> Vector:
    """The vector of length 1 in the direction of `values`.

    Raises ValueError when there is none: no or too many values, NaN, infinity, nothing but zeros.
    """
    if not 1 <= len(values) <= MAX_DIMENSIONS:
        raise ValueError(f"it has {len(values)} dimensions, and 1 to {MAX_DIMENSIONS:,} are possible")
    try:
        peak = max(abs(float(value)) for value in values)
    except OverflowError:
        peak = math.inf
    if not math.isfinite(peak) or any(map(math.isnan, values)):
        raise ValueError("every component has to be a finite number")
    if peak == 0:
        raise ValueError("it is all zeros, which has no direction")
    # Scaled to its largest component first, so that no square overflows or vanishes.
    scaled = [value / peak for value in values]
    length = math.hypot(*scaled)
    return _HEADER.pack(len(scaled), 0) + struct.pack(f">{len(scaled)}e", *(value / length for value in scaled))
