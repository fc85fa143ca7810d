"""The loop of a worker that embeds, after the fact: what it does when a text, or the provider, fails."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from agentmemory_engine.complaints import Complaints
from agentmemory_engine.embedding import Embedder, EmbeddingUnavailable, Unembeddable
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.observer import Observer
from agentmemory_engine.progress import Progress

logger = logging.getLogger(__name__)

_PART = 8
"""Texts that are embedded and stored at once: what is done is kept, whatever happens to the rest of the claim."""
_DEADLY = 3
_PROBE = "Is anyone there?"


@dataclass(frozen=True, kw_only=True)
class Queued:
    """What waits for vectors; `attempts` failed by its fault, maybe. `text` is None when it was erased meanwhile."""

    agent: str
    id: UUID
    attempts: int
    text: str | None


One = TypeVar("One", bound=Queued)


class EmbeddingLoop(ABC, Generic[One]):
    """The embedding worker of one sidecar. A provider that is down costs searchability only."""

    def __init__(self, embedder: Embedder, observer: Observer, progress: Progress) -> None:
        self._embedder = embedder
        self._observer = observer
        self._progress = progress
        self._complaints = Complaints(logger, "embedding waits")

    @abstractmethod
    async def embed_batch(self) -> int:
        """Embed a batch; how much was done. Raises StoreUnavailable, EmbeddingUnavailable."""

    @abstractmethod
    async def _embed(self, queued: Sequence[One]) -> None:
        """Embed and store these. Raises StoreUnavailable, EmbeddingUnavailable, Unembeddable."""

    @abstractmethod
    async def _give_up(self, one: One, reason: str) -> None:
        """Remember why this one gets no vector. Raises StoreUnavailable."""

    async def run(self) -> None:
        """Work until cancelled: at each commit of this process, and every second for those of others."""
        pause = 1.0
        while True:
            try:
                while await self.embed_batch():
                    pause = 1.0
                self._complaints.end()
            except (Unavailable, EmbeddingUnavailable) as error:
                self._observer.failed("embedding")
                self._complaints.say(error)
                pause = min(pause * 2, 30.0)
                await asyncio.sleep(pause)
            except Exception:
                self._observer.failed("embedding")
                logger.exception("embedding failed; the queue keeps what is pending, and it is tried again")
                await asyncio.sleep(pause)
            await self._rest()

    async def _rest(self) -> None:
        """Until there may be something to do."""
        await self._progress.wait(1.0)

    async def _embed_in_parts(self, queued: Sequence[One]) -> None:
        if any(one.attempts for one in queued):
            for one in queued:
                await self._embed_alone(one)
            return
        part = self._part_of(queued)
        for start in range(0, len(queued), part):
            await self._embed(queued[start : start + part])

    def _part_of(self, queued: Sequence[One]) -> int:
        """How many of these are embedded and stored at once."""
        return _PART

    async def _embed_alone(self, one: One) -> None:
        """Embed one; a text that the provider refuses, or crashes on thrice while it is well, is unembeddable."""
        try:
            await self._embed([one])
        except Unembeddable as error:
            await self._give_up(one, str(error))
        except EmbeddingUnavailable as error:
            if one.attempts + 1 < _DEADLY or not await self._is_well():
                raise
            await self._give_up(one, f"the provider failed on it {_DEADLY} times: {error}")

    async def _is_well(self) -> bool:
        """Whether the provider can embed anything at all now."""
        try:
            # As a query, which asks also where a fault has the provider left alone for a while.
            await self._embedder.embed_query(_PROBE)
        except (EmbeddingUnavailable, Unembeddable):
            return False
        return True
