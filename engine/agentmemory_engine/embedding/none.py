"""No embedding: memory is found by time, type and keyword only."""

from __future__ import annotations

from collections.abc import Sequence

from agentmemory_engine.embedding.errors import EmbeddingUnavailable
from agentmemory_engine.embedding.vector import Vector

_REFUSAL = "`embedding.provider` is None; choose Local to have vectors"


class NullEmbedder:
    """The provider `None`. Who asks `enabled` first never calls it."""

    enabled = False
    model = "none"
    dimensions = 0

    async def start(self) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Raises EmbeddingUnavailable."""
        raise EmbeddingUnavailable(_REFUSAL)

    async def embed_query(self, text: str) -> Vector:
        """Raises EmbeddingUnavailable."""
        raise EmbeddingUnavailable(_REFUSAL)
