"""Embedding: texts become vectors. One provider a file, all behind one Protocol.

Nothing here imports numpy or a model: a vector is bytes, and a local model runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agentmemory_engine.embedding.errors import EmbeddingMisconfigured, EmbeddingUnavailable, Unembeddable
from agentmemory_engine.embedding.vector import Vector, dimension_of, from_floats, to_floats

__all__ = [
    "Embedder",
    "EmbeddingMisconfigured",
    "EmbeddingUnavailable",
    "Unembeddable",
    "Vector",
    "dimension_of",
    "from_floats",
    "open_embedder",
    "to_floats",
]


class Embedder(Protocol):
    """A provider. `model` names it in every row of a vector; vectors of two names are not comparable."""

    enabled: bool
    model: str
    dimensions: int

    async def start(self) -> None:
        """Get ready in the background; a provider that is down is no reason to fail."""

    async def close(self) -> None:
        """Let go of everything; calls under way raise EmbeddingUnavailable."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of length 1 a text, in order. Raises EmbeddingUnavailable, Unembeddable."""

    async def embed_query(self, text: str) -> Vector:
        """As `embed`, ahead of every text that waits there. Raises EmbeddingUnavailable, Unembeddable."""


def open_embedder(
    provider: str,
    *,
    dimensions: int,
    model: str | None = None,
    base_url: str | None = None,
    path: str | None = None,
    key: Callable[[], str | None] = lambda: None,
) -> Embedder:
    """The embedder that `spec.embedding` asks for, not started yet. Raises EmbeddingMisconfigured.

    `path` is for the provider Local: the directory of another model than its own. `model`, `base_url` and `key` are for
    the provider OpenAI: its model, its address, and what answers the API key of the moment, None where it wants none.
    """
    if provider == "None":
        from agentmemory_engine.embedding.none import NullEmbedder

        return NullEmbedder()
    if provider == "Local":
        from agentmemory_engine.embedding.local import LocalEmbedder

        return LocalEmbedder.configured(dimensions, path)
    if provider == "OpenAI":
        from agentmemory_engine.embedding.openai import OpenAIEmbedder

        if not model:
            raise EmbeddingMisconfigured("`embedding.model` is missing: the provider OpenAI has more than one.")
        return OpenAIEmbedder(model=model, dimensions=dimensions, base_url=base_url, key=key)
    raise EmbeddingMisconfigured(f"`embedding.provider` is {provider!r}; there are Local, OpenAI and None.")
