"""Drain: consolidate what no sidecar is left to consolidate, then end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from agentmemory_engine.complaints import Complaints
from agentmemory_engine.errors import Unavailable
from agentmemory_engine.memory import Memory
from agentmemory_sidecar.errors import GaveUp

logger = logging.getLogger(__name__)
_BETWEEN_TRIES = 0.5
_OTHERS = "another sidecar owns shards that hold turns, or there is more than could be moved"


async def drain(memory: Memory, *, seconds: float, stop: asyncio.Event | None = None) -> None:
    """Own every shard that is free until all journals are empty; `memory` runs no workers of its own.

    Raises GaveUp after that many seconds, or when `stop` is set.
    """
    if memory.parts.consolidator is None:
        logger.info("mode %s has no journal", memory.settings.mode)
        return
    async with memory:
        try:
            await _unless(stop or asyncio.Event(), _persist(memory, seconds))
        finally:
            await memory.consolidator.stop()
            logger.info("drained %d turns", memory.consolidator.moved)
    logger.info("the journal is empty")


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, or give it up when told to stop. Raises GaveUp then."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GaveUp("stopped before the journal was empty; what is left stays in it")
        working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait({working, stopping})


async def _persist(memory: Memory, seconds: float) -> None:
    reason = _OTHERS
    complaints = Complaints(logger, "drain waits")
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await memory.consolidator.drain()
                except Unavailable as error:
                    reason = str(error)
                    complaints.say(error)
                await asyncio.sleep(_BETWEEN_TRIES)
    except TimeoutError:
        raise GaveUp(f"the journal is not empty after {seconds:g} s: {reason}") from None
