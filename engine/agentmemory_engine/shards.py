"""Shards: who owns one, fenced by an epoch in Postgres; and the opening of one for a new run of Redis."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agentmemory_engine.batches import lease_milliseconds
from agentmemory_engine.journal import Journal, run_id_of
from agentmemory_engine.keys import digest_agent
from agentmemory_engine.positions import START, Entry
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.redis import Redis
from agentmemory_engine.scripts import load_script
from agentmemory_engine.settings import Settings
from agentmemory_engine.tombstones import Tombstones
from agentmemory_engine.working import Stored, format_stored

logger = logging.getLogger(__name__)
_PAGE = 200


@dataclass(frozen=True)
class Owned:
    """A shard that this sidecar owns, as Postgres last said."""

    shard: int
    epoch: int
    opening: int
    durable: Entry

    @classmethod
    def from_row(cls, row: Any) -> Owned:
        durable = Entry(row["durable_opening"], row["durable_sequence"])
        return cls(row["shard"], row["epoch"], row["opening"], durable)


def fair_share(shards: int, sidecars: int) -> int:
    """How many shards one of so many sidecars takes at most."""
    return -(-shards // max(1, sidecars))


class Ownership:
    """The shards of this sidecar: taken when their lease has lapsed, renewed, given back."""

    def __init__(self, postgres: Postgres, settings: Settings) -> None:
        self._postgres = postgres
        self._settings = settings
        self.owned: dict[int, Owned] = {}
        self.stale = True
        """Whether to renew at once instead of in time."""

    async def renew(self, *, all_of_them: bool = False) -> None:
        """Renew our leases, take a fair share of lapsed ones, give back what is over it. Raises StoreUnavailable.

        `all_of_them` takes every shard that is free, for a drain; the sidecars there are then keep what they have.
        """
        lease = timedelta(seconds=self._settings.lease)
        instance = self._settings.instance
        epochs = [owned.epoch for owned in self.owned.values()]
        rows = await self._postgres.fetch("renew_leases", instance, lease, list(self.owned), epochs)
        kept = {row["shard"]: Owned.from_row(row) for row in rows}
        share = self._settings.shards if all_of_them else fair_share(self._settings.shards, await self._announce())
        if len(kept) > share:
            await self._give_back(sorted(kept)[share:])
            kept = {shard: kept[shard] for shard in sorted(kept)[:share]}
        elif len(kept) < share:
            taken = await self._postgres.fetch("take_shards", instance, lease, share - len(kept), list(kept))
            kept |= {row["shard"]: Owned.from_row(row) for row in taken}
        self.owned = kept
        self.stale = False

    async def keep_alive(self) -> None:
        """Keep our leases from lapsing while a long round goes on, and be seen by the other sidecars.

        Raises StoreUnavailable.
        """
        lease = timedelta(seconds=self._settings.lease)
        await self._postgres.fetch("keep_leases", self._settings.instance, lease, list(self.owned))
        await self._announce()

    async def _announce(self) -> int:
        """Be counted; answer how many sidecars there are."""
        lease = timedelta(seconds=self._settings.lease)
        row = await self._postgres.fetchrow("announce_sidecar", self._settings.instance, lease)
        return row[0] if row else 1

    async def _give_back(self, shards: Sequence[int]) -> None:
        await self._postgres.fetch("release_shards", self._settings.instance, list(shards))

    async def release(self) -> None:
        """Give everything back, so that others need not wait for the lease to lapse. Raises StoreUnavailable."""
        shards, self.owned = list(self.owned), {}
        await self._give_back(shards)
        await self._postgres.fetch("forget_sidecar", self._settings.instance)

    def forget(self, shard: int) -> None:
        """Stop tending a shard, until it is taken anew: Postgres said that it is not ours, or we failed on it."""
        self.owned.pop(shard, None)
        self.stale = True


class Opener:
    """Opens a shard for a new run of Redis, which may have gone back in time.

    Five steps: a new epoch and opening in Postgres; a token in Redis, which closes the shard; what was found, recorded
    in Postgres; working memory put in line with Postgres; the mark, by which the shard takes turns again. Each refuses
    when another opening has begun, and an opener that dies half-way is followed by one that begins anew.
    """

    def __init__(self, redis: Redis, postgres: Postgres, journal: Journal, settings: Settings) -> None:
        self._redis = redis
        self._postgres = postgres
        self._journal = journal
        self._settings = settings
        self._keys = settings.keys
        self._tombstones = Tombstones(postgres)

    async def open(self, owned: Owned) -> Owned | None:
        """Open the shard; answer what we own then, or None when it is not ours any more or must be tried again.

        Raises StoreUnavailable.
        """
        begun = await self._begin(owned, at_least=0)
        if begun is None:
            return None
        state = self._keys.state(owned.shard)
        run_id = run_id_of(await self._redis.connection(state))
        token = await self._put_token(run_id, begun)
        if token[0] == b"behind":
            begun = await self._begin(begun, at_least=token[1] + 1)
            if begun is None:
                return None
            token = await self._put_token(run_id, begun)
            if token[0] == b"behind":
                return None
        found = Entry.parse(token[1])
        await self._tombstones.thin_out_lost(owned.shard, found)
        recorded = await self._record(begun, run_id, found, Entry.parse(token[2]) if token[2] else START)
        if recorded is None or not await self._restore(recorded, run_id):
            return None
        if not await self._redis.run(load_script("open"), [state], [run_id, recorded.opening]):
            return None
        logger.info("shard %d opened: opening %d, found %s", owned.shard, recorded.opening, found)
        return recorded

    async def _begin(self, owned: Owned, *, at_least: int) -> Owned | None:
        row = await self._postgres.fetchrow("begin_opening", owned.shard, owned.epoch, at_least)
        return replace(owned, epoch=row["epoch"], opening=row["opening"]) if row else None

    async def _put_token(self, run_id: bytes, owned: Owned) -> Any:
        keys = [self._keys.state(owned.shard), self._keys.journal(owned.shard)]
        return await self._redis.run(load_script("token"), keys, [run_id, owned.opening])

    async def _record(self, owned: Owned, run_id: bytes, found: Entry, trimmed: Entry) -> Owned | None:
        """Note what this opening found; where Redis had trimmed what Postgres no longer has, note the gap.

        Erasures that Redis lost after they were accepted are carried out.
        """
        async with self._postgres.transaction() as session:
            durable = await lock_shard(session, self._postgres, owned)
            if durable is None:
                return None
            query = self._postgres.query
            await session.execute(query("record_opening"), owned.shard, owned.opening, run_id.decode(), *found)
            await self._tombstones.carry_out_lost(session, owned.shard, found)
            if trimmed > durable:
                logger.error(
                    "shard %d: Postgres went back from %s to %s; the gap is recorded", owned.shard, trimmed, durable
                )
                await session.execute(query("record_gap"), owned.shard, *durable, *trimmed)
                await session.execute(query("raise_durable"), owned.shard, *trimmed)
                durable = trimmed
        return replace(owned, durable=durable)

    async def _restore(self, owned: Owned, run_id: bytes) -> bool:
        """Put working memory in line with Postgres. False when another opening has begun."""
        agents = await self._agents_in_redis(owned, run_id)
        if agents is None:
            return False
        agents |= await self._agents_in_postgres(owned)
        ordered = sorted(agents)
        for start in range(0, len(ordered), _PAGE):
            if not await self._restore_page(owned, run_id, ordered[start : start + _PAGE]):
                return False
        return True

    async def _agents_in_redis(self, owned: Owned, run_id: bytes) -> set[str] | None:
        """Who has working memory in Redis; None when another opening has begun."""
        keys = [self._keys.state(owned.shard), self._keys.leases(owned.shard)]
        agents: set[str] = set()
        while True:
            page: list[bytes | int] = [run_id, owned.opening, len(agents), len(agents) + _PAGE - 1]
            reply = await self._redis.run(load_script("leased"), keys, page)
            if reply[0] != b"read":
                return None
            agents.update(agent.decode() for agent in reply[1:])
            if len(reply) <= _PAGE:
                return agents

    async def _agents_in_postgres(self, owned: Owned) -> set[str]:
        """Whose working memory would still be within its lease."""
        since = datetime.now(UTC) - timedelta(seconds=self._settings.ttl)
        agents: set[str] = set()
        last = ""
        while True:
            rows = await self._postgres.fetch("agents_active", owned.shard, since, last, _PAGE)
            agents.update(row["agent_id"] for row in rows)
            if len(rows) < _PAGE:
                return agents
            last = rows[-1]["agent_id"]

    async def _restore_page(self, owned: Owned, run_id: bytes, agents: list[str]) -> bool:
        rows = await self._postgres.fetch("snapshots_of", agents, [digest_agent(agent) for agent in agents])
        now = datetime.now(UTC)
        keys = [self._keys.state(owned.shard), self._keys.journal(owned.shard), self._keys.leases(owned.shard)]
        args: list[bytes | str | int] = [run_id, owned.opening, int(now.timestamp() * 1000)]
        leases: dict[str, int] = {}
        for row in rows:
            agent = row["agent_id"]
            leases[agent] = self._lease_of(row, now)
            keys += (self._keys.document(owned.shard, agent), self._keys.window(owned.shard, agent))
            tombstone = _entry(row["erased_opening"], row["erased_sequence"])
            args += (agent, tombstone, _entry(row["opening"], row["sequence"]), leases[agent])
        reply = await self._redis.run(load_script("restore"), keys, args)
        if reply[0] != b"done":
            return False
        for wanted in reply[1:]:
            if not await self._put_back(owned, run_id, wanted.decode(), leases[wanted.decode()]):
                return False
        return True

    def _lease_of(self, row: Any, now: datetime) -> int:
        """Milliseconds for which a snapshot that is put back lives; 0 when its lease has ended, or there is none."""
        if row["active_at"] is None:
            return 0
        idle = (now - row["active_at"]).total_seconds()
        return lease_milliseconds(self._settings.ttl, idle) if idle < self._settings.ttl else 0

    async def _put_back(self, owned: Owned, run_id: bytes, agent: str, lease: int) -> bool:
        """One at a time, since documents can be large. False when another opening has begun."""
        row = await self._postgres.fetchrow("last_snapshot", agent)
        if row is None:
            return True
        version = Entry(row["opening"], row["sequence"])
        stored = Stored(version, row["kind"].decode(), row["writer"], row["fingerprint"], row["events"], row["body"])
        keys = [self._keys.state(owned.shard), self._keys.leases(owned.shard), self._keys.document(owned.shard, agent)]
        now = int(datetime.now(UTC).timestamp() * 1000)
        args: list[bytes | str | int] = [run_id, owned.opening, now, agent, format_stored(stored), lease]
        return bool(await self._redis.run(load_script("put_back"), keys, args))


def _entry(opening: int | None, sequence: int | None) -> str:
    """The entry as a script takes it; empty where there is none."""
    return "" if opening is None or sequence is None else str(Entry(opening, sequence))


async def lock_shard(session: Session, postgres: Postgres, owned: Owned) -> Entry | None:
    """Lock the shard's row in this transaction; answer up to where it is durable, or None when it is not ours."""
    row = await session.fetchrow(postgres.query("lock_shard"), owned.shard, owned.epoch, owned.opening)
    return None if row is None else Entry(row["durable_opening"], row["durable_sequence"])
