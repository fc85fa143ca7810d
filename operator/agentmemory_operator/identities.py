"""Whose memory the stores hold: nothing is made in those of another one, and nothing is begun anew in silence."""

from __future__ import annotations

import logging
from typing import Any

from agentmemory_engine import administration
from agentmemory_engine.errors import ForeignStore
from agentmemory_operator import conditions
from agentmemory_operator.changes import applied_to
from agentmemory_operator.errors import Blocked, Waiting
from agentmemory_operator.work import Work

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


async def keep_redis_alone(work: Work, client: Any, *, keeps_file: bool) -> None:
    """Without Postgres: Redis has the identity record, which is made where this memory never served. Before any login.

    A Redis that keeps no append-only file has said that a restart loses all of it: it goes on as the same memory.
    Raises Blocked for one that holds another memory, or lost this one all the same; Waiting while changes are paused.
    """
    known = applied_to(work.memory).get("identity")
    found = await administration.read_identity(client, work.settings.keys)
    if found is not None or keeps_file:
        _check_served(work, "Redis", found)
    if found is None and work.frozen:
        raise Waiting("Paused", "The identity record would have to be written in Redis, and changes are paused.")
    try:
        work.identity = await administration.ensure_identity(client, work.settings, known)
    except ForeignStore as error:
        raise Blocked("IdentityMismatch", str(error)) from error
    if found is None and known is not None:
        logger.warning("%s/%s: Redis lost its memory, and begins anew", work.memory.namespace, work.memory.name)
