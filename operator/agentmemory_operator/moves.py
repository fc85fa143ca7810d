"""Stores of the user's own that are given another address: fine when the memory is there already (a new name, a replica
that took over), and refused when it is not, since what is in the former store would be left behind."""

from __future__ import annotations

from agentmemory_engine import administration, schema
from agentmemory_engine.errors import ForeignStore
from agentmemory_operator.changes import Store, applied_to, moved_stores
from agentmemory_operator.connections import postgres_admin, redis_admin
from agentmemory_operator.errors import OperatorFault, Refused
from agentmemory_operator.providers import postgres as postgres_providers
from agentmemory_operator.providers import redis as redis_providers
from agentmemory_operator.work import Work


async def find_refused_moves(work: Work) -> list[Refused]:
    """The moves that would leave the memory behind. Raises KubeError."""
    found = []
    known = applied_to(work.memory).get("identity")
    for store in moved_stores(work.memory):
        why = await _find_obstacle(work, store, known) if known else ""
        if why:
            former = applied_to(work.memory)["external"][store]
            found.append(
                Refused(
                    f"{store.capitalize()}Moved",
                    f"The {store.capitalize()} that spec.{store}.external names now does not hold this memory ({why}). "
                    f"Replicate or restore it there first, or set host and port back to {former['host']} and "
                    f"{former['port']}.",
                )
            )
    return found


async def read_identity(work: Work, store: Store) -> str | None:
    """The id in the identity record of a store, asked as its administrator; None where there is none.

    Raises OperatorFault and KubeError.
    """
    if store == "redis":
        access = await redis_providers.choose(work.memory.spec.redis).provide(work)
        async with redis_admin(access) as client:
            return await administration.read_identity(client, work.settings.keys)
    access = await postgres_providers.choose(work.memory.spec.postgres).provide(work)
    async with postgres_admin(access) as admin:
        return await schema.read_identity(admin, work.settings)


async def _find_obstacle(work: Work, store: Store, known: str) -> str:
    try:
        found = await read_identity(work, store)
    except (OperatorFault, ForeignStore) as fault:
        return str(fault).rstrip(".")
    if found is None:
        return "it holds none of this name"
    return "" if found == known else "it holds another one of this name"
