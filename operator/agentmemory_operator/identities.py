"""Whose memory the stores hold: nothing is made in those of another one, and none is begun anew in silence."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from agentmemory_engine import administration
from agentmemory_engine.errors import ForeignStore, SchemaMismatch
from agentmemory_engine.identity_records import new_identity, parse_identity
from agentmemory_operator import conditions, events
from agentmemory_operator.changes import applied_to
from agentmemory_operator.errors import Blocked, Waiting
from agentmemory_operator.kube import KubeError
from agentmemory_operator.work import Work, stamp

logger = logging.getLogger(__name__)

_AGAIN = (
    "Restore it from a backup; or, to begin anew with what is there, delete this AgentMemory under deletionPolicy "
    "Retain and make it again."
)


def check_postgres(work: Work) -> None:
    """Raises Blocked for a Postgres that does not hold what this AgentMemory has served: nothing is made in it."""
    _check_served(work, "Postgres", work.identity)


def _check_served(work: Work, store: str, found: str | None) -> None:
    known = applied_to(work.memory).get("identity")
    if known is None or found == known:
        return
    held = "no memory of this name any more" if found is None else "another memory of this name"
    raise Blocked("IdentityMismatch", f"{store} holds {held}. {_AGAIN}")


def check_redis(work: Work, found: str | None) -> None:
    """Beside Postgres: raises Blocked for a Redis that holds another memory, before any login is made in it; Waiting
    while that cannot be told."""
    work.redis_identity = found
    if found is None:
        return
    if conditions.SCHEMA in work.found:
        raise Blocked("IdentityMismatch", "Whose memory Redis holds cannot be told: SchemaReady says why.")
    if "postgres" in work.serving:
        check_nothing_is_left_behind(work)
    known = work.identity or applied_to(work.memory).get("identity")
    if known is None:
        raise Waiting("WaitingForPostgres", "Whose memory Redis holds can be told once Postgres answers.")
    if found != known:
        raise Blocked(
            "IdentityMismatch",
            "Redis holds the memory of another AgentMemory under this name; give it its own Redis or name.",
        )


def check_nothing_is_left_behind(work: Work) -> None:
    """Raises Blocked for a Postgres without a memory beside a Redis with one: a new one would never be its like."""
    if work.identity is None and work.redis_identity is not None:
        raise Blocked(
            "IdentityMismatch", "Redis holds a memory of this name, and Postgres holds none. Restore Postgres from a "
            f"backup; or, if what Redis holds may go, delete its keys {work.settings.keys.prefix}*."
        )  # fmt: skip


async def keep_redis_alone(work: Work, client: Any) -> None:
    """Without Postgres: the identity record is in Redis, and made there, before any login is.

    A Redis that lost it has lost the memory, which goes on as the same one, as its sidecars have it; an Event says so.
    Raises Blocked for a Redis that holds another memory; Waiting while the record would have to be written, and changes
    are paused.
    """
    known = applied_to(work.memory).get("identity")
    record = await administration.read_identity(client, work.settings.keys)
    if record is None and work.frozen:
        raise Waiting("Paused", "The identity record would have to be written in Redis, and changes are paused.")
    if record is None:
        made = known or new_identity(work.settings.shards)
        # What another leader wrote in between is what holds.
        record = await administration.write_identity(client, work.settings.keys, made)
        if known is not None:
            await _tell_of_loss(work)
    try:
        parse_identity(record, work.settings.shards)
    except (ForeignStore, SchemaMismatch) as error:
        raise Blocked("IdentityMismatch", str(error)) from error
    _check_served(work, "Redis", record)
    work.identity = record


async def _tell_of_loss(work: Work) -> None:
    raw, now = work.memory.raw, work.clock()
    note = "Redis held nothing of this memory any more: what it has lost is gone, and the memory goes on empty."
    logger.warning("%s/%s: %s", work.memory.namespace, work.memory.name, note)
    event = events.compose(
        raw, reason="MemoryLost", action="Observe", note=note, kind="Warning", instance=work.config.pod, now=now,
        name=events.name_once(raw, f"MemoryLost at {stamp(now)}"),
    )  # fmt: skip
    # A quota may forbid it; the log has it.
    with suppress(KubeError):
        await events.tell(work.kube, event)
