"""Drain: consolidate what no sidecar is left to consolidate, then end."""

from __future__ import annotations

import asyncio
import logging

from agentmemory_engine.errors import Unavailable
from agentmemory_engine.memory import Memory
from agentmemory_sidecar.errors import GaveUp

logger = logging.getLogger(__name__)
_BETWEEN_TRIES = 0.5
_OTHERS = "another sidecar owns shards that hold turns, or there is more than could be moved"


async def drain(memory: Memory, *, seconds: float) -> None:
    """Own every shard that is free until all journals are empty; `memory` runs no workers of its own.

    Raises GaveUp after that many seconds.
    """
    async with memory:
        try:
            await _persist(memory, seconds)
        finally:
            await memory.consolidator.stop()
    logger.info("the journal is empty")


async def _persist(memory: Memory, seconds: float) -> None:
    reason = _OTHERS
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await memory.consolidator.drain()
                except Unavailable as error:
                    reason = str(error)
                    logger.warning("drain waits: %s", error)
                await asyncio.sleep(_BETWEEN_TRIES)
    except TimeoutError:
        raise GaveUp(f"the journal is not empty after {seconds:g} s: {reason}") from None
