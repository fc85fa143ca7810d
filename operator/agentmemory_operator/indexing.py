"""The step that has approximate indexes made and dropped, as declared: in the background, as one may take minutes."""

from __future__ import annotations

import asyncio
import logging

from agentmemory_engine.vector_index import plan_indexes, tend_indexes
from agentmemory_operator.connections import postgres_admin
from agentmemory_operator.work import Work

logger = logging.getLogger(__name__)

_PATIENCE = 86_400.0
"""Seconds that one index may take."""
_AGAIN, _AFTER_FAILURE = 15.0, 300.0


async def tend_vector_indexes(work: Work) -> None:
    """See whether the indexes are as declared, and have them made so. Where one is missing, recall scans: nobody waits.

    Raises OperatorFault.
    """
    if "schema" not in work.serving or work.postgres is None:
        return
    memo = work.memo
    if memo.indexing is not None and not memo.indexing.done():
        work.progress("An index of vectors is being made; until it is there, recall scans.", again=_AGAIN)
        return
    failed, memo.indexing = memo.indexing is not None and memo.indexing.result(), None
    if failed:
        work.progress(f"An index of vectors cannot be made, and recall scans: {failed}", again=_AFTER_FAILURE)
    async with postgres_admin(work.postgres) as admin:
        steps = await plan_indexes(admin, work.settings)
    if steps and not work.frozen:
        if not failed:
            work.progress(f"Postgres {steps[0].what}; until it is there, recall scans.", again=_AGAIN)
        memo.indexing = asyncio.create_task(_make(work), name="indexes")


async def _make(work: Work) -> str:
    """Why it could not be done; empty when it was."""
    assert work.postgres is not None
    try:
        async with postgres_admin(work.postgres, patience=_PATIENCE) as admin:
            done = await tend_indexes(admin, work.settings)
    except Exception as error:
        # Whatever it is, the next look has to find a task that ended, and its reason.
        logger.warning("%s/%s: no index of vectors: %s", work.memory.namespace, work.memory.name, error)
        return str(error) or type(error).__name__
    for what in done:
        logger.info("%s/%s: Postgres %s", work.memory.namespace, work.memory.name, what)
    return ""
