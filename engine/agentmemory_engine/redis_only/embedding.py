"""The embedding worker: agents that may have something new are claimed for a while, so that sidecars share the work.

What two do at once is done twice, and does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from agentmemory_engine.embedding import Embedder, EmbeddingUnavailable, Unembeddable
from agentmemory_engine.embedding.chunks import split
from agentmemory_engine.embedding_loop import EmbeddingLoop, Queued
from agentmemory_engine.errors import ShardClosed
from agentmemory_engine.journal import run_id_of
from agentmemory_engine.observer import Observer
from agentmemory_engine.progress import Progress
from agentmemory_engine.redis import Redis
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.redis_only.records import RecordStore
from agentmemory_engine.redis_only.vectors import VectorStore, text_of
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import Tails

logger = logging.getLogger(__name__)

_CLAIM = 60.0
_AGENTS = 4
"""Of a shard, claimed at once."""
_LOOK = 1.0
"""Seconds between two looks at all shards, for what other sidecars have accepted."""
_GATHER = 0.05
"""Seconds after news, in which more may come."""
_SLACK = 64
"""Vectors of what is gone that may be left: looking for them costs more than they do."""
_PRESENT = 60.0
"""Seconds after its last look for which a sidecar keeps those of other models from embedding."""
_AT_ONCE = 500
_REMEMBERED = 10_000


@dataclass(frozen=True, kw_only=True)
class Missing(Queued):
    """An event or fact without a vector, of an agent as it was after its last erasure (empty: none)."""

    life: bytes


class News:
    """The shards in which this process has accepted something that may want a vector."""

    def __init__(self) -> None:
        self._shards: set[int] = set()
        self._event = asyncio.Event()

    def tell(self, shard: int) -> None:
        """There is something new in this shard."""
        self._shards.add(shard)
        self._event.set()

    def take(self) -> set[int]:
        """The shards since the last time."""
        shards, self._shards = self._shards, set()
        self._event.clear()
        return shards

    async def wait(self, seconds: float) -> bool:
        """Whether there is something new within this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Embedding(EmbeddingLoop[Missing]):
    """The embedding worker of one sidecar."""

    def __init__(
        self, redis: Redis, settings: Settings, openings: Openings, embedder: Embedder, observer: Observer,
        progress: Progress, *, tail: Tails, records: RecordStore, vectors: VectorStore, news: News,
    ) -> None:  # fmt: skip
        super().__init__(embedder, observer, progress)
        self._redis = redis
        self._settings = settings
        self._keys = settings.keys
        self._openings = openings
        self._tail = tail
        self._records = records
        self._vectors = vectors
        self._news = news
        self._begun = False
        self._looked = float("-inf")
        self._attempts: dict[UUID, int] = {}

    async def _rest(self) -> None:
        if await self._news.wait(_LOOK):
            await asyncio.sleep(_GATHER)

    async def embed_batch(self) -> int:
        """Embed what some agents have; how much. Raises StoreUnavailable, EmbeddingUnavailable."""
        if not self._begun:
            await self.release()
            for shard in range(self._settings.shards):
                await self._openings.opened(shard, partial(self._begin, shard))
            self._begun = True
        done, failure = 0, None
        for shard in self._due():
            agents = await self._openings.opened(shard, partial(self._claim, shard))
            for agent in agents:
                try:
                    done += await self._tend(shard, agent)
                except EmbeddingUnavailable as error:
                    # A text of one agent that no provider takes must not keep those of others waiting.
                    failure = failure or error
                    self._news.tell(shard)
            if len(agents) == _AGENTS:
                self._news.tell(shard)
        if failure is not None:
            raise failure
        return done

    def _due(self) -> Sequence[int]:
        """The shards to look at: all of them now and then."""
        news, now = self._news.take(), time.monotonic()
        if now - self._looked < _LOOK:
            return sorted(news)
        self._looked = now
        return range(self._settings.shards)

    async def _begin(self, shard: int) -> None:
        """Have all agents looked at again where vectors are of another model, or of none."""
        state, all_agents = self._keys.state(shard), self._keys.agents(shard)
        if await self._redis.execute("HMGET", state, "model", "redo") == [self._vectors.model.encode(), None]:
            return
        connection = await self._openings.at(shard)
        # What was embedded later, by us or others, is of this model; and what is looked at again leaves the range.
        until = self._redis.value(await connection.send("TIME"))[0]
        while True:
            names = await self._redis.execute("ZRANGEBYSCORE", all_agents, "-inf", until, "LIMIT", 0, _AT_ONCE)
            agents = [name.decode() for name in names]
            keys = [state, all_agents]
            for agent in agents:
                keys += [self._keys.about(shard, agent), self._keys.log(shard, agent)]
            ended = len(agents) < _AT_ONCE
            connection = await self._openings.at(shard)
            args: list[bytes | str | int] = [run_id_of(connection), self._vectors.model, int(ended), *agents]
            if not await self._redis.run_on(connection, load_script("log_redo"), keys, args):
                raise ShardClosed("The shard is being opened for a new run of Redis.")
            if ended:
                return

    async def _claim(self, shard: int) -> list[str]:
        connection, keys = await self._openings.at(shard), self._keys
        names = [keys.state(shard), keys.agents(shard), keys.claims(shard)]
        args: list[bytes | str | int] = [
            run_id_of(connection), self._settings.instance, int(_CLAIM * 1000), _AGENTS, self._vectors.model,
            int(_PRESENT * 1000),
        ]  # fmt: skip
        reply = await self._redis.run_on(connection, load_script("log_claim"), names, args)
        if reply[0] == b"begin":
            await self._begin(shard)
            reply = await self._redis.run_on(connection, load_script("log_claim"), names, args)
        if reply[0] == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        return [agent.decode() for agent in reply[1:]]

    async def release(self) -> None:
        """Let others embed what we, or an earlier run of us, had claimed. Raises StoreUnavailable."""
        for shard in range(self._settings.shards):
            await self._release(shard)

    async def _release(self, shard: int, *agents: str) -> None:
        connection = await self._openings.at(shard)
        keys = [self._keys.state(shard), self._keys.claims(shard)]
        args: list[bytes | str] = [run_id_of(connection), self._settings.instance, *agents]
        await self._redis.run_on(connection, load_script("log_release"), keys, args)

    async def _tend(self, shard: int, agent: str) -> int:
        """Embed all that one agent has without a vector; how much that was."""
        started = time.perf_counter()
        opening = await self._redis.execute("HGET", self._keys.state(shard), "opening") or b""
        about = await self._redis.execute("HMGET", self._keys.about(shard, agent), "life", "events")
        life, seen = about[0] or b"", about[1] or b"0"
        texts = await self._texts(agent)
        await self._clear(shard, agent, len(texts))
        missing = [
            Missing(agent=agent, id=one, attempts=self._attempts.get(one, 0), text=texts[one], life=life)
            for one in await self._vectors.waiting(agent, texts)
        ]
        if missing:
            try:
                await self._embed_in_parts(missing)
            except (EmbeddingUnavailable, Unembeddable) as error:
                await self._put_off(shard, agent, missing)
                raise EmbeddingUnavailable(f"the provider failed on a batch: {error}") from error
            self._observer.embedded(len(missing), time.perf_counter() - started)
        await self._settle(shard, agent, life, seen, opening)
        await self._progress.report()
        return len(missing)

    async def _put_off(self, shard: int, agent: str, missing: Sequence[Missing]) -> None:
        """Next time each goes alone, which tells a bad text from a bad provider."""
        if await self._is_well():
            if len(self._attempts) > _REMEMBERED:
                self._attempts.clear()
            for one in missing:
                self._attempts[one.id] = self._attempts.get(one.id, 0) + 1
        await self._release(shard, agent)

    async def _texts(self, agent: str) -> dict[UUID, str]:
        """What is embedded, by id: of events, and of facts."""
        events = (await self._tail.unflushed(agent)).events or []
        texts = {event.id: text for event in events if (text := text_of(event))}
        return texts | {row.id: row.text for row in (await self._records.read(agent)).facts.values()}

    async def _clear(self, shard: int, agent: str, needed: int) -> None:
        """Let go of the vectors of what is gone, where there are many more than the agent needs."""
        keys = self._keys
        hashes = keys.vectors(shard, agent), keys.unembeddable(shard, agent)
        if sum([await self._redis.execute("HLEN", one) for one in hashes]) <= needed + _SLACK:
            return
        found: set[bytes] = set()
        for one in hashes:
            found.update(await self._redis.execute("HKEYS", one))
        # Read after them, so that what is new is none of them.
        gone = sorted(found - {identity.bytes for identity in await self._texts(agent)})
        names = [keys.state(shard), keys.log(shard, agent), *hashes]
        for start in range(0, len(gone), _AT_ONCE):
            connection = await self._openings.at(shard)
            args: list[bytes | str] = [run_id_of(connection), "", *gone[start : start + _AT_ONCE]]
            await self._redis.run_on(connection, load_script("log_trim"), names, args)

    async def _settle(self, shard: int, agent: str, life: bytes, seen: bytes, opening: bytes) -> None:
        connection, keys = await self._openings.at(shard), self._keys
        names = [keys.state(shard), keys.about(shard, agent), keys.agents(shard), keys.claims(shard)]
        args: list[bytes | str] = [run_id_of(connection), agent, life, seen, opening, self._vectors.model]
        if not await self._redis.run_on(connection, load_script("log_settle"), names, args):
            self._news.tell(shard)

    async def _embed(self, queued: Sequence[Missing]) -> None:
        chunks = [(one, chunk) for one in queued for chunk in split(one.text or "")]
        vectors = await self._embedder.embed([chunk for _, chunk in chunks]) if chunks else []
        found: dict[UUID, list[bytes]] = {one.id: [] for one in queued}
        for (one, _), vector in zip(chunks, vectors, strict=True):
            found[one.id].append(vector)
        values: list[Any] = [
            part for one in queued for part in (one.id.bytes, self._vectors.value(one.text or "", found[one.id]))
        ]
        await self._store(queued[0], "vectors", values)
        for one in queued:
            self._attempts.pop(one.id, None)

    async def _give_up(self, one: Missing, reason: str) -> None:
        logger.warning("%s cannot be embedded: %s", one.id, reason)
        await self._store(one, "reasons", [one.id.bytes, self._vectors.reason(one.text or "", reason[:500])])
        self._attempts.pop(one.id, None)

    async def _store(self, first: Missing, what: str, values: Sequence[bytes]) -> None:
        """All are of one agent. Where it was erased meanwhile, nothing is kept."""
        agent, shard, keys = first.agent, self._settings.shard_of(first.agent), self._keys
        connection = await self._openings.at(shard)
        names = [
            keys.state(shard), keys.about(shard, agent), keys.vectors(shard, agent), keys.unembeddable(shard, agent),
            keys.claims(shard),
        ]  # fmt: skip
        args: list[bytes | str | int] = [
            run_id_of(connection), agent, first.life, self._settings.instance, int(_CLAIM * 1000), self._vectors.model,
            what, *values,
        ]  # fmt: skip
        await self._redis.run_on(connection, load_script("log_store"), names, args)
