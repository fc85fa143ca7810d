"""Status: lag, what is pending, and where a position stands. What cannot be seen is None, never a guess."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agentmemory_engine.answers import Model, ShardStatus, Status
from agentmemory_engine.connection import ServerInfo
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.journal import Journal, Probe
from agentmemory_engine.positions import START, Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis, check_policy, check_room
from agentmemory_engine.schema import check_schema
from agentmemory_engine.settings import Settings

T = TypeVar("T")
PATIENCE = 2.0
LATE = f"it did not answer within {PATIENCE:g} s"


async def within(seconds: float, question: Coroutine[Any, Any, T]) -> T | None:
    """The answer, or None after so long.

    The question then goes on by itself: a driver that is cut off in the middle would wait for its server all the same.
    """
    asking = asyncio.create_task(question)
    asking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait({asking}, timeout=seconds)
    return asking.result() if asking.done() else None


async def reason_of(question: Coroutine[Any, Any, object]) -> str:
    """Why a store cannot be used; empty when it can."""
    try:
        await question
    except Unavailable as error:
        return str(error)
    return ""


def searchable_of(durable: Entry, queued: Entry | None) -> Entry:
    """The last entry up to which all is durable and embedded."""
    if queued is None or queued > durable:
        return durable
    return Entry(queued.opening, queued.sequence - 1) if queued.sequence else START


class Reporter:
    """Answers for the whole memory, from both stores."""

    def __init__(
        self, redis: Redis, postgres: Postgres, journal: Journal, settings: Settings,
        model: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`model` answers the number of the model that this process embeds by, as far as it is known."""
        self._model = model
        self._redis = redis
        self._postgres = postgres
        self._journal = journal
        self._settings = settings

    async def status(self) -> Status:
        """Never raises for a store that is down: its part is None, and `degraded` names it.

        Answers within seconds, so that one store which hangs does not hide what the other one says.
        """
        probes, found = await asyncio.gather(within(PATIENCE, self._probes()), within(PATIENCE, self._rows()))
        rows, counts, models = found or (None, None, None)
        seen = probes or [None] * self._settings.shards
        known = None if None in seen else [probe for probe in seen if probe is not None]
        infos = [] if known is None else self._redis.infos
        return Status(
            mode=self._settings.mode,
            lag=None if known is None else max((probe.lag for probe in known), default=0.0),
            pending=None if known is None else sum(probe.pending for probe in known),
            dead_letters=counts["dead_letters"] if counts else None,
            quarantined=counts["quarantined"] if counts else None,
            unembedded=counts["unembedded"] if counts else None,
            unembeddable=counts["unembeddable"] if counts else None,
            model=self._model(),
            models=models,
            undistilled=counts["undistilled"] if counts else None,
            undistillable=counts["undistillable"] if counts else None,
            persistence=persistence_of(infos),
            shards=[_shard_status(shard, probe, rows[shard] if rows else None) for shard, probe in enumerate(seen)],
            degraded=[name for name, part in (("redis", known), ("postgres", rows)) if part is None],
        )

    async def _probes(self) -> list[Probe | None]:
        return await asyncio.gather(*(self._probe(shard) for shard in range(self._settings.shards)))

    async def _probe(self, shard: int) -> Probe | None:
        """What one shard says, or None: on a cluster, its server alone may be down."""
        try:
            return await self._journal.probe(shard)
        except Unavailable:
            return None

    async def _rows(self) -> tuple[dict[int, Any] | None, Any, list[Model] | None]:
        try:
            rows = await self._postgres.fetch("shard_states", self._model())
            counts = await self._postgres.fetchrow("counts", self._model())
            models = [Model.of(row) for row in await self._postgres.fetch("models")]
        except Unavailable:
            return None, None, None
        return {row["shard"]: row for row in rows}, counts, models

    async def check(self, identity: Callable[[], Awaitable[str]] | None = None) -> dict[str, str]:
        """What keeps an event written now from becoming durable, by part; empty when nothing does.

        `identity` answers for the schema where it was checked before; without it, it is checked anew. Answers within
        seconds.
        """

        async def ask_postgres() -> None:
            await (identity or self._check_schema)()
            await self._postgres.fetchrow("takes_writes")

        async def ask_redis() -> None:
            for info in await self._redis.refresh():
                check_policy(info)
                check_room(info)

        *answers, probes = await asyncio.gather(
            within(PATIENCE, reason_of(ask_postgres())),
            within(PATIENCE, reason_of(ask_redis())),
            within(PATIENCE, self._probes()),
        )
        reasons = [LATE if answer is None else answer for answer in answers]
        problems = {part: reason for part, reason in zip(("postgres", "redis"), reasons, strict=True) if reason}
        unseen = self._settings.shards if probes is None else probes.count(None)
        if unseen and not problems:
            problems["shards"] = f"{unseen} cannot be asked; may this login read the keys of this memory?"
        closed = sum(not probe.open for probe in probes or [] if probe is not None)
        if closed:
            problems["shards"] = f"{closed} of {self._settings.shards} shards are not open for this run of Redis yet."
        return problems

    async def _check_schema(self) -> str:
        async with self._postgres.session() as session:
            return await check_schema(session, self._settings)


def persistence_of(infos: list[ServerInfo]) -> str:
    """What is in force on every server."""
    if not infos:
        return "Unknown"
    return "append-only file" if all(info.append_only for info in infos) else "none"


def _shard_status(shard: int, probe: Probe | None, row: Any) -> ShardStatus:
    durable = searchable = None
    if row is not None:
        last = Entry(row["durable_opening"], row["durable_sequence"])
        queued = None if row["queued_opening"] is None else Entry(row["queued_opening"], row["queued_sequence"])
        durable, searchable = Position(shard, last), Position(shard, searchable_of(last, queued))
    return ShardStatus(
        shard=shard,
        open=None if probe is None else probe.open,
        opening=None if row is None else row["opening"],
        pending=None if probe is None else probe.pending,
        lag=None if probe is None else probe.lag,
        durable=durable,
        searchable=searchable,
        owner=None if row is None else row["owner"],
    )
