"""Vectors: embeds what is durable, from its queue, after the fact. A provider that is down costs searchability only.

What is new goes first. What a back-fill found waits until nothing new does, and is claimed in smaller batches, so that
something new never waits long for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from agentmemory_engine.backfill import Backfill
from agentmemory_engine.embedding import Embedder, EmbeddingUnavailable, Unembeddable
from agentmemory_engine.embedding.chunks import split
from agentmemory_engine.embedding.text import searchable_text
from agentmemory_engine.embedding_loop import EmbeddingLoop, Queued
from agentmemory_engine.models import Models
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.progress import Progress
from agentmemory_engine.settings import Settings

logger = logging.getLogger(__name__)

_CLAIM = timedelta(seconds=60)


@dataclass(frozen=True)
class Queue:
    """What waits for vectors, as the statements that deal with it."""

    noun: str
    claim: str
    store: str
    give_up: str
    release: str
    which: str = "NOT backfill"
    batch: int = 64
    """How many are claimed at once."""
    part: int = 8
    """How many are embedded and stored at once: what is done is kept, whatever happens to the rest of the claim."""

    @property
    def old(self) -> Queue:
        """Those that a back-fill found."""
        return replace(self, which="backfill", batch=32, part=32)


EVENTS = Queue("event", "claim_queue", "store_embeddings", "mark_unembeddable", "release_claims")
FACTS = Queue(
    "fact", "claim_knowledge", "store_knowledge_embeddings", "mark_fact_unembeddable", "release_knowledge_claims"
)
NEW = (FACTS, EVENTS)
OLD = (FACTS.old, EVENTS.old)


@dataclass(frozen=True, kw_only=True)
class QueuedRow(Queued):
    """What waits in a queue."""

    queue: Queue


class Vectors(EmbeddingLoop[QueuedRow]):
    """The embedding worker of one sidecar."""

    def __init__(
        self, postgres: Postgres, embedder: Embedder, settings: Settings, observer: Observer, progress: Progress,
        models: Models,
    ) -> None:  # fmt: skip
        super().__init__(embedder, observer, progress)
        self._postgres = postgres
        self._settings = settings
        self._models = models
        self._backfill = Backfill(postgres, models, settings)
        self._released = False
        self._next_shard = dict.fromkeys(NEW + OLD, 0)

    async def model(self) -> int:
        """The number of the embedder's model in this schema. Raises StoreUnavailable."""
        number = await self._models.number()
        assert number is not None, "asked for with a provider only"
        return number

    async def embed_batch(self) -> int:
        """Embed a batch of each queue, of what is new or else of what a back-fill found; how much was done.

        Raises StoreUnavailable, EmbeddingUnavailable.
        """
        if not self._released:
            await self.release()
            self._released = True
        done = await self._embed_batches(NEW)
        if done or not self._models.filling:
            return done
        return await self._embed_batches(OLD) or await self._backfill.step()

    async def _embed_batches(self, queues: Sequence[Queue]) -> int:
        done, failure = 0, None
        for queue in queues:
            try:
                done += await self._embed_batch_of(queue)
            except EmbeddingUnavailable as error:
                # A text of one queue that no provider takes must not keep those of the other waiting.
                failure = failure or error
        if failure is not None:
            raise failure
        return done

    async def _embed_batch_of(self, queue: Queue) -> int:
        started = time.perf_counter()
        queued = await self._claim(queue)
        if not queued:
            return 0
        try:
            await self._embed_in_parts(queued)
        except (EmbeddingUnavailable, Unembeddable) as error:
            # Claimed again, each goes alone, which tells a bad text from a bad provider.
            await self._postgres.fetch(queue.release, self._settings.instance, await self._is_well())
            raise EmbeddingUnavailable(f"the provider failed on a batch: {error}") from error
        self._observer.embedded(len(queued), time.perf_counter() - started)
        await self._progress.report()
        return len(queued)

    async def release(self) -> None:
        """Let others embed what we, or an earlier run of us, had claimed. Raises StoreUnavailable."""
        for queue in NEW:
            await self._postgres.fetch(queue.release, self._settings.instance, False)

    def _part_of(self, queued: Sequence[QueuedRow]) -> int:
        return queued[0].queue.part

    async def _claim(self, queue: Queue) -> list[QueuedRow]:
        claim = queue.batch, _CLAIM, self._settings.instance
        model = await self.model()
        rows = await self._postgres.fetch(queue.claim, *claim, self._next_shard[queue], model, which=queue.which)
        if not rows and self._next_shard[queue]:
            self._next_shard[queue] = 0
            rows = await self._postgres.fetch(queue.claim, *claim, 0, model, which=queue.which)
        if rows:
            self._next_shard[queue] = rows[0]["shard"] + 1
        return [
            QueuedRow(
                queue=queue,
                agent=row["agent_id"],
                id=row["id"],
                attempts=row["attempts"],
                text=None
                if row["content"] is None and row["payload"] is None
                else searchable_text(row["content"], row["payload"].encode() if row["payload"] else None),
            )
            for row in rows
        ]

    async def _give_up(self, one: QueuedRow, reason: str) -> None:
        logger.warning("%s %s cannot be embedded: %s", one.queue.noun, one.id, reason)
        await self._postgres.fetch(one.queue.give_up, one.agent, one.id, await self.model(), reason[:500])

    async def _embed(self, queued: Sequence[QueuedRow]) -> None:
        chunks = [(one, number, chunk) for one in queued for number, chunk in enumerate(split(one.text or ""))]
        vectors = await self._embedder.embed([chunk for _, _, chunk in chunks]) if chunks else []
        await self._postgres.fetch(
            queued[0].queue.store,
            [one.agent for one, _, _ in chunks], [one.id for one, _, _ in chunks],
            [number for _, number, _ in chunks], vectors, await self.model(),
            [one.agent for one in queued], [one.id for one in queued], vector=self._models.column,
        )  # fmt: skip
