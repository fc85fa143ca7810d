"""Vectors that cost nothing, so that what is measured is everything but the embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from agentmemory_engine.embedding import Vector
from agentmemory_engine.embedding.assets import DIMENSIONS, MODEL

Matrix = npt.NDArray[np.float32]
_HEADER = np.array([DIMENSIONS, 0], dtype=">u2").tobytes()


def unit_vectors(count: int, *seed: int) -> Matrix:
    """Random vectors of length 1, one a row; the same seed makes the same ones."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSIONS), dtype=np.float32)
    return normalised(vectors)


def normalised(vectors: Matrix) -> Matrix:
    """Each row at length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Matrix = (vectors / lengths).astype(np.float32)
    return scaled


def to_vector(row: Matrix) -> Vector:
    """A row as the engine stores it."""
    return _HEADER + row.astype(">f2").tobytes()


def from_vector(vector: Vector) -> Matrix:
    """The reverse of `to_vector`."""
    row: Matrix = np.frombuffer(vector, dtype=">f2", offset=len(_HEADER)).astype(np.float32)
    return row


class ReadyVectors:
    """An embedder under the local model's name that looks vectors up instead of making them."""

    enabled = True
    model = MODEL
    dimensions = DIMENSIONS

    def __init__(self, vector_of: Callable[[str], Vector]) -> None:
        self._vector_of = vector_of

    async def start(self) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text."""
        return [self._vector_of(text) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        """The vector of this text."""
        return self._vector_of(text)
