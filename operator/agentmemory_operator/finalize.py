"""The finalizer: what deletionPolicy Delete has to erase in stores that are not the operator's own.

All else goes with the resource by owner references. It never waits for a drain, and never for long: when the stores
cannot be reached, what is left there is said in an Event, and the resource goes.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

import asyncpg

from agentmemory_engine import administration, schema
from agentmemory_operator import events
from agentmemory_operator.connections import postgres_admin, redis_admin
from agentmemory_operator.errors import Blocked, OperatorFault, Waiting
from agentmemory_operator.kube import AGENT_MEMORY, KubeError
from agentmemory_operator.logins import other
from agentmemory_operator.names import GROUP
from agentmemory_operator.providers.postgres.external import External as ExternalPostgres
from agentmemory_operator.providers.redis.external import External as ExternalRedis
from agentmemory_operator.spec import AgentMemory
from agentmemory_operator.work import Work

logger = logging.getLogger(__name__)

FINALIZER = f"{GROUP}/external-stores"
PATIENCE = 300.0
"""Seconds for which stores that do not answer are tried again."""
_LONGEST = 120.0
"""Seconds for erasing in one store at one go: whatever answers there, other memories get their turn. What was erased
stays erased, and the next go comes further."""


def wanted(memory: AgentMemory) -> bool:
    """Whether something has to be erased by hand when the resource goes."""
    external = memory.spec.redis.external is not None or memory.spec.postgres.external is not None
    return memory.spec.deletion_policy == "Delete" and external


async def keep_finalizer(work: Work) -> None:
    """Have the finalizer exactly when it is wanted. Raises KubeError."""
    await _set(work, wanted(work.memory))


async def finalize(work: Work) -> bool:
    """Erase what is to be erased, then let go; False when it has to be tried again. Raises KubeError."""
    if FINALIZER not in work.memory.raw["metadata"].get("finalizers", []):
        return True
    left = await _erase(work) if wanted(work.memory) else []
    if left and not _is_over(work, left):
        return False
    if left:
        await _tell(work, left)
    await _set(work, False)
    return True


async def _erase(work: Work) -> list[OperatorFault]:
    """What could not be erased."""
    spec, left = work.memory.spec, []
    for step, external in ((_erase_redis, spec.redis.external), (_erase_postgres, spec.postgres.external)):
        if external is None:
            continue
        try:
            async with asyncio.timeout(_LONGEST):
                await step(work)
        except OperatorFault as fault:
            left.append(fault)
        except TimeoutError:
            left.append(Waiting("Unreachable", f"Erasing took longer than {_LONGEST:g} s."))
    return left


async def _erase_redis(work: Work) -> None:
    assert work.memory.spec.redis.external is not None
    access = await ExternalRedis(work.memory.spec.redis.external).provide(work)
    async with redis_admin(access) as client:
        first = f"{work.settings.keys.schema}_1"
        # First the logins, or a sidecar that is still there would write again what is erased.
        for username in (first, other(first)):
            await administration.drop_login(client, username)
        erased = await administration.erase(client, work.settings.keys)
    logger.info("%s/%s: erased %d keys in Redis", work.memory.namespace, work.memory.name, erased)


async def _erase_postgres(work: Work) -> None:
    assert work.memory.spec.postgres.external is not None
    access = await ExternalPostgres(work.memory.spec.postgres.external).provide(work)
    async with postgres_admin(access) as admin:
        try:
            await schema.unprovision(admin, work.settings.keys.schema)
        except asyncpg.PostgresError as error:
            raise Blocked("PostgresRefused", f"Postgres refuses to drop the schema: {error}") from error
    logger.info("%s/%s: dropped its schema", work.memory.namespace, work.memory.name)


def _is_over(work: Work, left: list[OperatorFault]) -> bool:
    """Whether to give up: a Secret that is gone will not come back with a namespace that is being deleted."""
    since = datetime.fromisoformat(work.memory.raw["metadata"]["deletionTimestamp"])
    waited = (work.clock() - since).total_seconds()
    return waited > PATIENCE or all(fault.reason == "SecretMissing" for fault in left)


async def _tell(work: Work, left: list[OperatorFault]) -> None:
    note = (
        f"Not erased: {'; '.join(str(fault) for fault in left)} What is left: schema {work.settings.keys.schema} and "
        f"roles of that name in Postgres, keys {work.settings.keys.prefix}* and users of that name in Redis."
    )
    raw = work.memory.raw
    # A namespace that is going away takes no Events, and a quota may forbid them: the log says it in any case.
    logger.warning("%s/%s: %s", work.memory.namespace, work.memory.name, note)
    event = events.compose(
        raw, reason="DataLeft", action="Delete", note=note, kind="Warning", instance=work.config.pod,
        now=work.clock(), name=events.name_once(raw, "DataLeft"),
    )  # fmt: skip
    try:
        await events.tell(work.kube, event)
    except KubeError as error:
        if error.passing:
            raise


async def _set(work: Work, held: bool) -> None:
    metadata = work.memory.raw["metadata"]
    there: list[str] = metadata.get("finalizers", [])
    if held == (FINALIZER in there):
        return
    finalizers = [*there, FINALIZER] if held else [one for one in there if one != FINALIZER]
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
    await work.kube.patch(AGENT_MEMORY, work.memory.namespace, work.memory.name, body)
