"""What the steps of one reconciliation share: the memory, the cluster, what was found so far."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agentmemory_engine.redis import Credentials
from agentmemory_engine.settings import Settings
from agentmemory_operator.conditions import Condition, Verdict
from agentmemory_operator.config import Config
from agentmemory_operator.errors import Refused
from agentmemory_operator.kube import Kube
from agentmemory_operator.objects import Objects
from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.spec import AgentMemory, Store, seconds

if TYPE_CHECKING:
    from agentmemory_operator.pods import Sidecars


@dataclass(frozen=True)
class Access:
    """How to reach a store as its administrator. `ca` is what to trust, `certificate` what a managed store should show;
    both in PEM."""

    address: StoreAddress
    admin: Credentials
    ca: str | None = None
    certificate: str | None = None
    ssl_mode: str = "verify-full"
    """Of Postgres, as libpq knows it."""


@dataclass
class Memo:
    """What a process remembers of a memory between reconciliations; all of it can be lost without harm."""

    redis_logins: tuple[str, ...] = ()
    """The run of Redis, and digests of the logins that were set in it."""
    postgres_logins: tuple[str, ...] = ()
    """Digests of the logins that were set in Postgres."""
    waits: int = 0
    """How many looks in a row found something on its way."""
    hiccups: int = 0
    """How many looks in a row the API server cut short, though it answers."""
    indexing: asyncio.Task[str] | None = None
    """Makes or drops an approximate index, which takes longer than a look may."""
    doubted_at: datetime | None = None
    """When the logins were last taken for not being set, since a store gave no good answer to them."""

    def stop(self) -> None:
        """End what goes on in the background; a later look begins it anew."""
        if self.indexing is not None:
            self.indexing.cancel()
            self.indexing = None


@dataclass
class Work:
    """One reconciliation."""

    memory: AgentMemory
    kube: Kube
    config: Config
    memo: Memo
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    found: dict[str, Condition] = field(default_factory=dict)
    redis: Access | None = None
    postgres: Access | None = None
    identity: str | None = None
    """What the identity record of Postgres says, as it was read now; that of Redis where there is no Postgres."""
    redis_identity: str | None = None
    """What the identity record of Redis says, as it was read now."""
    pooler: StoreAddress | None = None
    """Where sidecars reach Postgres, when not directly."""
    pooler_ca: str | None = None
    lag: float | None = None
    """Age of the oldest pending entry, in seconds; None when it could not be seen."""
    pending: int | None = None
    sidecars: Sidecars | None = None
    logins: dict[str, str] = field(default_factory=dict)
    """What Secret <memory>-credentials holds."""
    logins_since: str = ""
    """When that Secret was made (RFC 3339); empty where it is not known."""
    status: dict[str, Any] = field(default_factory=dict)
    """Members of the status to write, apart from conditions."""
    serving: set[str] = field(default_factory=set)
    """What was found good in this reconciliation: redis, postgres, schema."""
    dropped: set[str] = field(default_factory=set)
    """The stores in which the former login was dropped."""
    refused: list[Refused] = field(default_factory=list)
    """Changes that cannot be done."""
    cut_short: bool = False
    """Whether the API server answered a step with an error that may pass."""
    defect: Exception | None = None
    """What no step may raise, and one did: said in its condition, and raised once the status is written."""
    waiting: bool = False
    """Whether something is on its way."""
    blocked: bool = False
    """Whether others have to mend something first: what only waits for that is not on its way."""
    again: float | None = None
    """Seconds after which to look again, when sooner than usual."""
    now_pending: list[str] = field(default_factory=list)
    """What is under way, for the condition Progressing."""

    def __post_init__(self) -> None:
        self.objects = Objects(self.kube, self.memory.namespace, self.memory.name)
        self.frozen = False
        self.version: str = self.memory.raw["metadata"].get("resourceVersion", "")
        """The version of the resource that was read, or that was written since."""

    @property
    def settings(self) -> Settings:
        spec = self.memory.spec
        return Settings(
            namespace=self.memory.namespace,
            name=self.memory.name,
            mode=spec.mode,
            shards=spec.shards,
            ttl=seconds(spec.working_memory.ttl),
            max_delay=seconds(spec.consolidation.max_delay),
            index=spec.recall.index.kind,
            index_m=spec.recall.index.m,
            index_ef_construction=spec.recall.index.ef_construction,
            instance="operator",
        )

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores that the mode uses."""
        return self.memory.spec.stores

    @property
    def is_located(self) -> bool:
        """Whether it is known where all of them are."""
        return None not in (getattr(self, store) for store in self.stores)

    @property
    def is_whole(self) -> bool:
        """Whether all of it was found good: what the mode uses, and the schema where there is one."""
        return {*self.stores} <= self.serving and ("schema" in self.serving or "postgres" not in self.stores)

    @contextmanager
    def looking_only(self) -> Iterator[None]:
        """Write nothing inside: neither objects, nor in the stores."""
        before = self.frozen
        self.frozen = self.objects.frozen = True
        try:
            yield
        finally:
            self.frozen = self.objects.frozen = before

    def say(self, kind: str, status: Verdict, reason: str, message: str = "") -> None:
        """Record a finding. What an earlier step found False stays so."""
        known = self.found.get(kind)
        if known is None or known.status != "False":
            self.found[kind] = Condition(kind, status, reason, message)

    def progress(self, what: str, *, again: float = 5.0) -> None:
        """Something is under way, to be looked at again soon."""
        self.now_pending.append(what)
        self.soon(again)

    def soon(self, after: float) -> None:
        """Look again after so many seconds, or sooner."""
        self.again = after if self.again is None else min(self.again, after)


def stamp(now: datetime) -> str:
    """RFC 3339, in whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
