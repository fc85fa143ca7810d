"""What the engine has to know, apart from where its stores are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal
from uuid import uuid4

from agentmemory_engine.keys import Keys, shard_of

Mode = Literal["Hybrid", "Redis", "Postgres"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One AgentMemory as its sidecars see it. Durations are in seconds, sizes in bytes."""

    namespace: str
    name: str
    mode: Mode = "Hybrid"
    shards: int = 16
    ttl: float = 3600.0
    recent_messages: int = 50
    max_document_size: int = 1 << 20
    max_delay: float = 5.0
    batch_size: int = 256
    lease: float = 10.0
    """A shard whose owner did not renew for this long may be taken by another sidecar."""
    idempotency_window: float = 86_400.0
    instance: str = field(default_factory=lambda: uuid4().hex)
    """Names this sidecar as an owner. The same name after a restart takes its own shards back at once."""
    snapshots_kept: int = 5
    retention: float | None = None
    """How long an event stays after it was accepted; None: for good."""
    history: int = 1000
    """In mode `Redis`: how many turns of an agent are kept, and up to a sixteenth more."""
    channel_messages: int = 10_000
    """What one channel keeps at most; older messages make room."""
    channel_bytes: int = 32 << 20
    channel_age: float = 604_800.0
    """A message older than this is removed by a later one; without any, the last of them at this age."""
    channel_key_window: float = 3600.0
    """For how long a publication that is repeated with its idempotency key is known."""
    index: Literal["Exact", "HNSW"] = "Exact"
    """How the nearest vectors are found: by a scan of all that the agent has, or by an approximate index."""
    index_m: int = 16
    index_ef_construction: int = 128
    followers: int = 100
    """Who may wait for messages at once."""

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.namespace, self.name)

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores that the mode uses, by name."""
        return {"Hybrid": ("redis", "postgres"), "Redis": ("redis",), "Postgres": ("postgres",)}[self.mode]

    def shard_of(self, agent: str) -> int:
        return shard_of(agent, self.shards)
