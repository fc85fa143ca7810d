"""The vectors of one agent as a matrix, and how far they are from another vector: exact, over all of them."""

from __future__ import annotations

from collections.abc import Container
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

_HEADER = 4
"""Bytes before the components of a vector."""


class Matrix:
    """Grows by the vectors of one id after another; a text of several chunks has several."""

    def __init__(self, dimensions: int) -> None:
        self._size = _HEADER + 2 * dimensions
        self._dimensions = dimensions
        self._ids = bytearray()
        self._rows: NDArray[np.float32] = np.empty((0, dimensions), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes."""
        return self._rows.nbytes + len(self._ids)

    def add(self, identity: UUID, vectors: bytes) -> None:
        """These vectors, as embedding.vector has each."""
        count = len(vectors) // self._size
        if not count:
            return
        raw = np.frombuffer(vectors, np.uint8).reshape(count, self._size)[:, _HEADER:]
        rows = np.ascontiguousarray(raw).view(">f2").astype(np.float32)
        if self._count + count > len(self._rows):
            grown = np.empty((max(64, 2 * (self._count + count)), self._dimensions), np.float32)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        # Halves are rounded: the length is not quite 1 any more.
        self._rows[self._count : self._count + count] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._count += count
        self._ids += identity.bytes * count

    def keep(self, wanted: Container[UUID]) -> None:
        """Let go of the vectors of all other ids."""
        ids = [bytes(self._ids[start : start + 16]) for start in range(0, len(self._ids), 16)]
        kept = [place for place, identity in enumerate(ids) if UUID(bytes=identity) in wanted]
        self._rows = self._rows[kept]
        self._count = len(kept)
        self._ids = bytearray(b"".join(ids[place] for place in kept))

    def distances(self, vector: bytes) -> tuple[bytes, bytes]:
        """The cosine distance of each: ids of 16 bytes, distances of 4 (big-endian floats)."""
        given = np.frombuffer(vector[_HEADER:], ">f2").astype(np.float32)
        cosines = self._rows[: self._count] @ (given / np.linalg.norm(given))
        return bytes(self._ids), (1 - cosines).astype(">f4").tobytes()

    def nearest(self, vector: bytes) -> dict[UUID, float]:
        """The least distance of each id."""
        ids, distances = self.distances(vector)
        found: dict[UUID, float] = {}
        for place, distance in enumerate(np.frombuffer(distances, ">f4").tolist()):
            identity = UUID(bytes=ids[16 * place : 16 * place + 16])
            found[identity] = min(distance, found.get(identity, distance))
        return found
