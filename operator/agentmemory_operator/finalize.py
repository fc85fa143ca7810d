"""The finalizer, which an AgentMemory has from the moment its deletionPolicy is Delete until nothing would go with it.

When the resource is deleted, what is of value goes with it or stays, as the policy says by then, and what Delete has to
erase in stores that are not the operator's own is erased. It never waits for a drain, and never for long: when the
stores cannot be reached, what is left there is said in an Event, and the resource goes.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

import asyncpg

from agentmemory_engine import administration, schema
from agentmemory_engine.errors import ForeignStore
from agentmemory_operator import events
from agentmemory_operator.changes import applied_to, with_applied_stores
from agentmemory_operator.connections import postgres_admin, redis_admin
from agentmemory_operator.errors import Blocked, OperatorFault, Waiting
from agentmemory_operator.kube import AGENT_MEMORY, KubeError
from agentmemory_operator.logins import pair
from agentmemory_operator.names import GROUP
from agentmemory_operator.ownership import settle_ownership
from agentmemory_operator.providers.postgres.external import External as ExternalPostgres
from agentmemory_operator.providers.redis.external import External as ExternalRedis
from agentmemory_operator.spec import AgentMemory
from agentmemory_operator.work import Work

logger = logging.getLogger(__name__)

FINALIZER = f"{GROUP}/deletion-policy"
_FOREIGN = "IdentityMismatch"
PATIENCE = 300.0
"""Seconds for which stores that do not answer are tried again."""
_LONGEST = 120.0
"""Seconds for erasing in one store at one go: whatever answers there, other memories get their turn. What was erased
stays erased, and the next go comes further."""


async def keep_finalizer(work: Work) -> None:
    """Have the finalizer exactly while something goes with the memory. Raises KubeError."""
    wanted = work.memory.spec.deletion_policy == "Delete"
    if wanted != _is_held(work.memory):
        await settle_ownership(work)
        await _set(work, wanted)


async def finalize(work: Work) -> bool:
    """Erase what is to be erased, then let go; False when it has to be tried again. Raises KubeError."""
    if not _is_held(work.memory):
        return True
    work.memo.stop()
    await settle_ownership(work)
    work.memory = with_applied_stores(work.memory)
    left = await _erase(work) if work.memory.spec.deletion_policy == "Delete" else []
    if left and not _is_over(work, left):
        return False
    if left:
        await _tell(work, left)
    await _set(work, False)
    return True


def _is_held(memory: AgentMemory) -> bool:
    return FINALIZER in memory.raw["metadata"].get("finalizers", [])


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
        _check_identity(work, "Redis", await administration.read_identity(client, work.settings.keys))
        # First the logins, or a sidecar that is still there would write again what is erased.
        for username in sorted(pair(work.settings.keys.schema)):
            await administration.drop_login(client, username)
        erased = await administration.erase(client, work.settings.keys)
    logger.info("%s/%s: erased %d keys in Redis", work.memory.namespace, work.memory.name, erased)


async def _erase_postgres(work: Work) -> None:
    assert work.memory.spec.postgres.external is not None
    access = await ExternalPostgres(work.memory.spec.postgres.external).provide(work)
    async with postgres_admin(access) as admin:
        try:
            _check_identity(work, "Postgres", await schema.read_identity(admin, work.settings))
            await schema.unprovision(admin, work.settings.keys.schema)
        except ForeignStore as error:
            raise Blocked(_FOREIGN, str(error)) from error
        except asyncpg.PostgresError as error:
            raise Blocked("PostgresRefused", f"Postgres refuses to drop the schema: {error}") from error
    logger.info("%s/%s: dropped its schema", work.memory.namespace, work.memory.name)


def _check_identity(work: Work, store: str, found: str | None) -> None:
    """Raises Blocked for a store that holds another memory of this name: nothing is erased there."""
    known = applied_to(work.memory).get("identity")
    if found is not None and found != known:
        raise Blocked(_FOREIGN, f"{store} holds a memory of this name that this AgentMemory never served.")


def _is_over(work: Work, left: list[OperatorFault]) -> bool:
    """Whether to give up: a Secret that is gone will not come back with a namespace that is being deleted, and what
    is another's stays so."""
    since = datetime.fromisoformat(work.memory.raw["metadata"]["deletionTimestamp"])
    waited = (work.clock() - since).total_seconds()
    return waited > PATIENCE or all(fault.reason in ("SecretMissing", _FOREIGN) for fault in left)


async def _tell(work: Work, left: list[OperatorFault]) -> None:
    keys = work.settings.keys
    places = {
        "postgres": f"schema {keys.schema} and roles of that name in Postgres",
        "redis": f"keys {keys.prefix}* and users {keys.schema}_1 and _2 in Redis",
    }
    what = ", ".join(place for store, place in places.items() if store in work.stores)
    note = f"Not erased: {'; '.join(str(fault) for fault in left)} What is left: {what}."
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
    written = await work.kube.patch(AGENT_MEMORY, work.memory.namespace, work.memory.name, body)
    work.version = written["metadata"]["resourceVersion"]
