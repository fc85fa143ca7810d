"""An embedder for tests: its vectors follow from its name and the text alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

from agentmemory_engine.embedding import EmbeddingUnavailable, Unembeddable, Vector, from_floats


class Seeded:
    """One of many models: `name` and `dimensions` make it another one. Fails where it is told to."""

    enabled = True

    def __init__(self, name: str, dimensions: int = 8) -> None:
        self.model = name
        self.dimensions = dimensions
        self.down = False
        self.refuses = ""
        self.seen: list[str] = []

    def floats(self, text: str) -> list[float]:
        generator = random.Random(f"{self.model}/{text}")
        return [generator.gauss(0, 1) for _ in range(self.dimensions)]

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.down:
            raise EmbeddingUnavailable("down")
        for index, text in enumerate(texts):
            if self.refuses and self.refuses in text:
                raise Unembeddable("no", index=index)
        self.seen += texts
        return [from_floats(self.floats(text)) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        if self.down:
            raise EmbeddingUnavailable("down")
        return from_floats(self.floats(text))

    def ranked(self, query: str, texts: Sequence[str]) -> list[str]:
        """The texts as an exhaustive scan ranks them."""
        wanted = self.floats(query)

        def cosine(text: str) -> float:
            other = self.floats(text)
            product = sum(a * b for a, b in zip(wanted, other, strict=True))
            return float(product / sum(b * b for b in other) ** 0.5)

        return sorted(texts, key=cosine, reverse=True)
