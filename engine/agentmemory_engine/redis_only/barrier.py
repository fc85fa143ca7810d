"""The barrier: what is accepted is durable, as far as Redis is, and searchable once it is embedded."""

from __future__ import annotations

from collections.abc import Callable

from agentmemory_engine.answers import State
from agentmemory_engine.barrier import await_positions
from agentmemory_engine.errors import ShardClosed
from agentmemory_engine.journal import patiently, run_id_of
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.progress import Progress
from agentmemory_engine.redis import Redis
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.redis_only.vectors import VectorStore, text_of
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings
from agentmemory_engine.tail import Tails


class Barrier:
    """Asks Redis about positions, and hurries the embedding of those that are waited for."""

    def __init__(
        self, redis: Redis, settings: Settings, openings: Openings, tail: Tails, vectors: VectorStore,
        progress: Progress, hurry: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._redis = redis
        self._settings = settings
        self._openings = openings
        self._tail = tail
        self._vectors = vectors
        self._progress = progress
        self._hurry = hurry

    async def durable(self, agent: str) -> Entry:
        """The last entry of the agent: all of it is as durable as it will be. Raises ShardClosed, StoreUnavailable."""
        return (await self._tail.unflushed(agent)).read

    async def state(self, agent: str, position: Position) -> State:
        """Where a turn of this agent stands; one that was never accepted is `lost`. What was let go of by a bound, or
        erased, is not. Raises ShardClosed, StoreUnavailable."""
        if not 0 <= position.shard < self._settings.shards:
            return "lost"
        kept = await patiently(lambda: self._openings.opened(position.shard, lambda: self._is_kept(position)))
        if not kept:
            return "lost"
        if not self._vectors.enabled:
            return "searchable"
        events = (await self._tail.unflushed(agent)).events or []
        texts = {event.id: text_of(event) for event in events if event.position == position}
        wanted = {identity: text for identity, text in texts.items() if text}
        return "durable" if wanted and await self._vectors.waiting(agent, wanted) else "searchable"

    async def _is_kept(self, position: Position) -> bool:
        connection = await self._openings.at(position.shard)
        keys = [self._settings.keys.state(position.shard), self._settings.keys.openings(position.shard)]
        args: list[bytes | int] = [run_id_of(connection), *position.entry]
        reply = await self._redis.run_on(connection, load_script("log_state"), keys, args)
        if reply == b"closed":
            raise ShardClosed("The shard is being opened for a new run of Redis.")
        return bool(reply == b"kept")

    async def wait(self, positions: list[tuple[str, Position]], until: State, seconds: float) -> None:
        """Return when all are `durable` (or `searchable`). Raises BarrierTimeout, PositionLost, StoreUnavailable."""
        await await_positions(self.state, self._progress, positions, until, seconds, lambda one: self._hurry(one.shard))
