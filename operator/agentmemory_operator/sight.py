"""A memory as its sidecars see it: with their login, through their way to Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from agentmemory_engine.answers import Status
from agentmemory_engine.direct_status import Reporter as DirectReporter
from agentmemory_engine.errors import ForeignStore, MemoryFault
from agentmemory_engine.identity import Identity
from agentmemory_engine.journal import Journal
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis, check_policy, check_room
from agentmemory_engine.settings import Settings
from agentmemory_engine.status import LATE, PATIENCE, Reporter, persistence_of, reason_of, within
from agentmemory_operator.connections import dsn_of, redis_address
from agentmemory_operator.errors import Blocked
from agentmemory_operator.logins import Logins
from agentmemory_operator.resources.common import ssl_mode
from agentmemory_operator.work import Work


class Sight:
    """A memory through one login; `async with` opens and closes it. Raises Blocked for stores of another memory."""

    def __init__(self, work: Work, login: Logins) -> None:
        self._redis = _redis(work, login) if "redis" in work.stores else None
        self._postgres = _postgres(work, login) if "postgres" in work.stores else None
        self._view = _view(work.settings, self._redis, self._postgres)

    async def __aenter__(self) -> Sight:
        if self._postgres is not None:
            await self._postgres.open()
        try:
            if self._redis is not None:
                await self._redis.connection()
        except ForeignStore as error:
            await self._close()
            raise Blocked("IdentityMismatch", str(error)) from error
        except MemoryFault:
            return self
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        for store in (self._redis, self._postgres):
            if store is not None:
                await store.close()

    async def status(self) -> Status:
        """What is pending. Never raises for a store that is down: its part is None."""
        return await self._view.status()

    async def check(self) -> dict[str, str]:
        """Why a store cannot be used with this login, by store; empty where all can. Other parts may be named, too."""
        return await self._view.check()


@dataclass(frozen=True)
class _View:
    """How the stores of one mode are asked."""

    status: Callable[[], Awaitable[Status]]
    check: Callable[[], Awaitable[dict[str, str]]]


def _view(settings: Settings, redis: Redis | None, postgres: Postgres | None) -> _View:
    if redis is None:
        assert postgres is not None
        direct = DirectReporter(postgres, settings)
        return _View(direct.status, direct.check)
    if postgres is None:
        alone = RedisAlone(redis, settings)
        return _View(alone.status, alone.check)
    identity = Identity(redis, postgres, settings)
    reporter = Reporter(redis, postgres, Journal(redis, settings), settings)
    return _View(reporter.status, partial(reporter.check, identity.read))


class RedisAlone:
    """A memory that has only Redis: what is acknowledged is where it stays, so that nothing is ever pending."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    async def status(self) -> Status:
        """Never raises for a Redis that is down: what it would say is None."""
        there = await within(PATIENCE, reason_of(self._redis.refresh())) == ""
        infos = self._redis.infos if there else []
        return Status(
            mode=self._settings.mode,
            lag=0.0 if infos else None,
            pending=0 if infos else None,
            dead_letters=0 if infos else None,
            unembedded=None,
            unembeddable=None,
            persistence=persistence_of(infos),
            shards=[],
            degraded=[] if infos else ["redis"],
        )

    async def check(self) -> dict[str, str]:
        """What keeps this login from being used; empty when nothing does. Answers within seconds."""
        reason = await within(PATIENCE, reason_of(self._ask()))
        reason = LATE if reason is None else reason
        return {"redis": reason} if reason else {}

    async def _ask(self) -> None:
        for info in await self._redis.refresh():
            check_policy(info)
            check_room(info)
        # Whether it may read this memory's keys.
        await self._redis.execute("EXISTS", self._settings.keys.identity)


def _redis(work: Work, login: Logins) -> Redis:
    assert work.redis is not None
    return Redis(redis_address(work.redis, login.redis), client_name="agentmemory-operator")


def _postgres(work: Work, login: Logins) -> Postgres:
    access = work.postgres
    assert access is not None
    address = work.pooler or access.address
    trust = work.pooler_ca if work.pooler else access.ca
    mode = ssl_mode(work.memory, ca=trust is not None)
    dsn = dsn_of(address, mode, access.address.database)
    return Postgres(
        dsn, lambda: login.postgres, schema=work.settings.keys.schema, size=2, timeout=5.0, trust=lambda: trust
    )
