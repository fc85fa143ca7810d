"""What can go wrong with an embedding. Nothing of it touches durability: the event is in Postgres already."""

from __future__ import annotations

from typing import Self

from agentmemory_engine.errors import MemoryFault, ProviderUnavailable


class EmbeddingUnavailable(ProviderUnavailable):
    """The provider is down, or went down over these texts; the same call may succeed later."""

    code = "embedding-unavailable"
    title = "Embedding unavailable"

    @classmethod
    def of(cls, error: ProviderUnavailable) -> Self:
        """What the endpoint says, as what it means for embeddings."""
        return error if isinstance(error, cls) else cls(str(error))


class Unembeddable(MemoryFault):
    """The provider is well and will never take this text. `index` is its place in the call."""

    code = "unembeddable"
    title = "Text that cannot be embedded"

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class EmbeddingMisconfigured(MemoryFault):
    """`spec.embedding` asks for what this installation cannot do; a person has to change one or the other."""

    code = "embedding-misconfigured"
    title = "Embedding misconfigured"
