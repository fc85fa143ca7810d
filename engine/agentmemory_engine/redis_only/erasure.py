"""Erasure in one script: when it is answered, the agent is gone."""

from __future__ import annotations

from agentmemory_engine.answers import ErasureReceipt
from agentmemory_engine.redis_only.log import Log


class Erasing:
    """Carries out erasures and answers their receipts."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def erase(self, agent: str, key: str, seconds: float) -> ErasureReceipt:
        """Erase all that was accepted before. The same key answers the first erasure, for as long as keys are known.

        Raises KeyReused, WrongEvictionPolicy, ShardClosed, StoreUnavailable.
        """
        position, repeated, erased = await self._log.erase(agent, key)
        return ErasureReceipt(agent, position, key, repeated=repeated, erased=erased)
