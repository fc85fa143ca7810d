"""Erasure: an agent asks to be forgotten in every tier, and waits until it is."""

from __future__ import annotations

import time
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from agentmemory_engine.answers import Erased, ErasureReceipt
from agentmemory_engine.barrier import Barrier
from agentmemory_engine.errors import BarrierTimeout, PositionLost, ShardClosed
from agentmemory_engine.journal import Journal, patiently
from agentmemory_engine.keys import digest_agent, digest_key
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.settings import Settings
from agentmemory_engine.tombstones import Erasure, Tombstones

_ATTEMPTS = 3
"""How often an erasure that Redis lost before it was carried out is begun anew."""


class Erasing:
    """Accepts erasures and answers their receipts.

    One is accepted when it is in the journal and marked in Postgres. The mark hides what is erased from readers that
    cannot ask Redis, outlives Redis, and knows the key for as long as the receipt is kept.
    """

    def __init__(self, postgres: Postgres, journal: Journal, barrier: Barrier, settings: Settings) -> None:
        self._postgres = postgres
        self._journal = journal
        self._barrier = barrier
        self._tombstones = Tombstones(postgres)
        self._settings = settings

    async def erase(self, agent: str, key: str, seconds: float) -> ErasureReceipt:
        """Erase all that was accepted before; wait so many seconds at most until it is gone.

        The same key answers the first erasure, whatever was written since. Raises KeyReused, PositionLost, JournalFull,
        WrongEvictionPolicy, ShardClosed, StoreUnavailable.
        """
        deadline = time.monotonic() + seconds
        for _ in range(_ATTEMPTS):
            position, repeated = await patiently(lambda: self._accept(agent, key))
            try:
                await self._barrier.wait([(agent, position)], "durable", max(0.0, deadline - time.monotonic()))
            except BarrierTimeout:
                return ErasureReceipt(agent, position, key, repeated=repeated, erased=None)
            except PositionLost:
                await self._postgres.fetch("forget_erasure", digest_agent(agent), *position.entry)
                continue
            row = await self._find(agent, key)
            if row is not None and row["erased_at"] is not None:
                return ErasureReceipt(agent, position, key, repeated=repeated, erased=_erased(row))
        raise PositionLost("The erasure was lost by a store that went back in time; ask for it again with a new key.")

    async def _accept(self, agent: str, key: str) -> tuple[Position, bool]:
        """Where the erasure stands, and whether it was accepted before."""
        shard = self._settings.shard_of(agent)
        known = await self._find(agent, key)
        if known is not None:
            return Position(shard, Entry(known["opening"], known["sequence"])), True
        receipt = await self._journal.erase(agent, key)
        erasure = Erasure(agent, receipt.position.entry, digest_key(key), datetime.now(UTC))
        async with self._postgres.transaction() as session:
            if not await session.fetchval(self._postgres.query("holds_entry"), shard, *erasure.entry):
                # A mark behind the opening that lost its entry would never be carried out.
                raise ShardClosed("The shard is being opened for a new run of Redis; ask again with the same key.")
            await self._tombstones.mark(session, shard, erasure)
        return receipt.position, receipt.repeated

    async def _find(self, agent: str, key: str) -> Any:
        return await self._postgres.fetchrow("find_erasure", digest_agent(agent), digest_key(key))


def _erased(row: Any) -> Erased:
    return Erased(**{field.name: row[field.name] for field in fields(Erased)})
