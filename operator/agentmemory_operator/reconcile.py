"""Bring one AgentMemory into being and keep it so: a short list of ordered steps, each of which looks at what is there
and mends what differs. Whatever happened before, and wherever it was cut off, the same steps lead to the same end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agentmemory_operator import conditions
from agentmemory_operator.changes import find_unserved, is_applied, refusals, with_applied_stores
from agentmemory_operator.conditions import Condition
from agentmemory_operator.draining import tend_drain
from agentmemory_operator.errors import Blocked, InvalidSpec, OperatorFault, Refused, Waiting
from agentmemory_operator.indexing import tend_vector_indexes
from agentmemory_operator.kube import KubeError
from agentmemory_operator.moves import find_refused_moves
from agentmemory_operator.names import RECONCILE_ANNOTATION
from agentmemory_operator.observe import observe
from agentmemory_operator.pods import tend_sidecars
from agentmemory_operator.pooling import tend_pooler
from agentmemory_operator.resources import config
from agentmemory_operator.rotation import tend_credentials, tend_rotation
from agentmemory_operator.secrets import tend_api_keys
from agentmemory_operator.spec import STORES, Store
from agentmemory_operator.stores import tend_postgres, tend_redis, tend_schema
from agentmemory_operator.work import Work

logger = logging.getLogger(__name__)

_SOONEST, _LATEST = 1.0, 15.0
"""Seconds until the next look at what is on its way: short while it starts, longer when it is long in coming."""
_GROWTH = 1.25
_HICCUPS = 3
"""Looks in a row that the API server may cut short before the conditions say so: a webhook that fails for good, say."""


@dataclass(frozen=True)
class Step:
    """`kind` is the condition that says how it went; it is taken only where the mode uses these `stores`."""

    kind: str
    run: Callable[[Work], Awaitable[None]]
    stores: tuple[Store, ...] = ()


async def tend_configuration(work: Work) -> None:
    """Give the sidecars the memory's settings and the stores' addresses. Raises OperatorFault."""
    if not work.is_located:
        raise Waiting("WaitingForStores", "Where the stores are is not known yet.")
    redis, postgres = work.redis, work.postgres
    manifest = config.manifest(
        work.memory,
        redis=redis.address if redis else None,
        postgres=work.pooler or (postgres.address if postgres else None),
        redis_ca=redis.ca if redis else None,
        postgres_ca=work.pooler_ca if work.pooler or not postgres else postgres.ca,
    )
    await work.objects.ensure(manifest)


STEPS = (
    Step(conditions.CREDENTIALS, tend_credentials),
    # Before Redis, whose identity record is held against the one in Postgres.
    Step(conditions.POSTGRES, tend_postgres, ("postgres",)),
    Step(conditions.REDIS, tend_redis, ("redis",)),
    Step(conditions.POSTGRES, tend_pooler, ("postgres",)),
    Step(conditions.CREDENTIALS, tend_configuration),
    Step(conditions.SCHEMA, tend_schema, ("postgres",)),
    Step(conditions.SCHEMA, tend_vector_indexes, ("postgres",)),
    Step(conditions.CREDENTIALS, tend_rotation),
    Step(conditions.CREDENTIALS, tend_api_keys),
    Step(conditions.CONSOLIDATION, observe),
    Step(conditions.SIDECARS, tend_sidecars),
    # Only between two stores is there a journal.
    Step(conditions.CONSOLIDATION, tend_drain, STORES),
)


async def reconcile(work: Work) -> bool:
    """Run all steps, and leave in `work` what was found; whether something has to be mended by others first.

    Raises KubeError when the API server does not answer, or was disturbed for a moment: then nothing was found out.
    """
    try:
        blocked = await _reconcile(work)
    except KubeError:
        work.memo.hiccups += 1
        raise
    if not work.cut_short:
        work.memo.hiccups = 0
    return blocked


async def _reconcile(work: Work) -> bool:
    paused = work.memory.annotations.get(RECONCILE_ANNOTATION) == "disabled"
    unserved = find_unserved(work.memory.spec)
    if unserved is not None and not is_applied(work.memory):
        return _refuse(work, unserved)
    work.refused += refusals(work.memory) or ([unserved] if unserved else [])
    work.refused += await find_refused_moves(work)
    if work.refused:
        # What runs is what was applied: that is what there is to look at.
        work.memory = with_applied_stores(work.memory)
    steps = [step for step in STEPS if set(step.stores) <= set(work.stores)]
    if paused or work.refused:
        with work.looking_only():
            for step in steps:
                await _take(work, step)
    else:
        for step in steps:
            await _take(work, step)
    work.memo.waits = work.memo.waits + 1 if work.waiting else 0
    _conclude(work, paused=paused)
    return work.blocked


async def _take(work: Work, step: Step) -> None:
    """Run one step. A change that is refused leaves what runs alone: it is looked at only."""
    try:
        try:
            await step.run(work)
        except Refused as fault:
            work.refused.append(fault)
            with work.looking_only():
                await step.run(work)
    except OperatorFault as fault:
        _record(work, step.kind, fault)
    except KubeError as error:
        if error.status == 0 or (error.passing and work.memo.hiccups < _HICCUPS):
            raise
        work.cut_short = work.cut_short or error.passing
        reason = "ApiServerFails" if error.passing else "Forbidden"
        _record(work, step.kind, Blocked(reason, f"The API server refuses: {error}"))
    except Exception as error:
        # Its text may hold anything, a password too: the log of the operator is where it belongs.
        work.defect = work.defect or error
        said = f"The operator failed ({type(error).__name__}); its log says where. Please report it."
        _record(work, step.kind, Blocked("InternalError", said))


def _record(work: Work, kind: str, fault: OperatorFault) -> None:
    # What cannot be looked at is unknown; a part that is not there is not ready.
    verdict: conditions.Verdict = "Unknown" if kind == conditions.CONSOLIDATION else "False"
    work.say(kind, verdict, fault.reason, str(fault))
    if isinstance(fault, Blocked | InvalidSpec):
        work.blocked = True
    elif isinstance(fault, Waiting) and not work.blocked:
        work.waiting = True
        work.progress(str(fault), again=min(_LATEST, _SOONEST * _GROWTH ** min(work.memo.waits, 40)))


def _refuse(work: Work, fault: Refused) -> bool:
    """Make nothing of a memory that cannot be served."""
    work.refused.append(fault)
    for kind in conditions.needed(work.stores):
        work.say(kind, "False", fault.reason, str(fault))
    _conclude(work, paused=False)
    return False


def _conclude(work: Work, *, paused: bool) -> None:
    """The conditions of the whole."""
    for kind in (*conditions.needed(work.stores), conditions.CONSOLIDATION):
        work.found.setdefault(kind, Condition(kind, "Unknown", "NotObserved", "It could not be looked at yet."))
    work.found[conditions.READY] = conditions.summarize(work.found, work.stores)
    if work.refused:
        fault = work.refused[0]
        work.say(conditions.PROGRESSING, "False", fault.reason, f"{fault} What runs is left as it is.")
    elif work.now_pending:
        work.say(conditions.PROGRESSING, "True", "Reconciling", work.now_pending[0])
    elif work.blocked:
        work.say(conditions.PROGRESSING, "False", "Blocked", "Something has to be mended first; Ready says what.")
    else:
        work.say(conditions.PROGRESSING, "False", "Settled", "Nothing is under way.")
    if paused:
        work.say(
            conditions.PAUSED, "True", "Annotated", f"Nothing is changed while {RECONCILE_ANNOTATION} is disabled."
        )
    else:
        work.say(conditions.PAUSED, "False", "NotPaused", "")
