"""Erasure in one transaction: when it is answered, the agent is gone."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta

from agentmemory_engine.answers import Erased, ErasureReceipt
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.journal import ERASURE, key_reused
from agentmemory_engine.keys import digest_agent, digest_key
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.postgres_only.positions import take_position
from agentmemory_engine.settings import Settings
from agentmemory_engine.tombstones import Erasure, Tombstones
from agentmemory_engine.working import WRITTEN


class Erasing:
    """Carries out erasures and answers their receipts."""

    def __init__(self, postgres: Postgres, settings: Settings) -> None:
        self._postgres = postgres
        self._settings = settings
        self._tombstones = Tombstones(postgres)

    async def erase(self, agent: str, key: str, seconds: float) -> ErasureReceipt:
        """Erase all that was accepted before. The same key answers the first erasure.

        It holds up the agent's own turns only, and takes as long as it takes: there is nothing to wait for after it.
        Raises KeyReused, StoreUnavailable.
        """
        hashed, digest = digest_agent(agent), digest_key(key)
        shard = self._settings.shard_of(agent)
        async with self._postgres.transaction() as session:
            known = await session.fetchrow(self._postgres.query("find_erasure"), hashed, digest)
            repeated = known is not None
            if known is None:
                repeated = not await self._erase(session, agent, digest)
                known = await session.fetchrow(self._postgres.query("find_erasure"), hashed, digest)
        if known is None:
            raise StoreUnavailable("postgres", "the erasure is not there after it was carried out; ask again.")
        entry = Entry(known["opening"], known["sequence"])
        erased = Erased(**{field.name: known[field.name] for field in fields(Erased)})
        return ErasureReceipt(agent, Position(shard, entry), key, repeated=repeated, erased=erased)

    async def _erase(self, session: Session, agent: str, key: bytes) -> bool:
        """Whether it did; not where another call with this key has come first."""
        query, hashed = self._postgres.query, digest_agent(agent)
        taken = await take_position(session, self._postgres, hashed)
        before = await session.fetchrow(query("turn_before"), hashed, key)
        if before is not None:
            if before["fingerprint"] != ERASURE:
                raise key_reused()
            return False
        document = await session.fetchrow(query("live_document"), agent, hashed)
        documents = int(document is not None and document["kind"] == WRITTEN.encode())
        erasure = Erasure(agent, taken.entry, key, taken.accepted_at, documents)
        await self._tombstones.carry_out_at_once(session, self._settings.shard_of(agent), erasure)
        window = timedelta(seconds=self._settings.idempotency_window)
        await session.execute(query("remember_turn"), hashed, key, ERASURE, *taken.entry, *taken.entry, window, None)
        return True
