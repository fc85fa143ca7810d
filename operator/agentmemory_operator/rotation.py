"""The steps around the sidecars' logins: made once, rotated when the annotation asks for it."""

from __future__ import annotations

from agentmemory_engine.errors import MemoryFault
from agentmemory_operator import logins
from agentmemory_operator.kube import SECRET
from agentmemory_operator.names import ROTATE_ANNOTATION, child
from agentmemory_operator.objects import secret_data
from agentmemory_operator.secrets import ensure_credentials, new_password
from agentmemory_operator.sight import Sight
from agentmemory_operator.work import Work, stamp

_PAUSE = 3.0


async def tend_credentials(work: Work) -> None:
    """Read the logins, and begin a rotation that is asked for. Raises OperatorFault."""
    live = await ensure_credentials(work)
    data = secret_data(live)
    work.logins_since = live["metadata"].get("creationTimestamp", "")
    wanted = work.memory.annotations.get(ROTATE_ANNOTATION, "")
    changes = logins.begin(data, wanted, {store: new_password() for store in work.stores})
    if changes and not work.frozen:
        data = secret_data(await work.objects.change_secret(live, changes))
    work.logins = data
    done = data.get("rotation", "")
    if done:
        work.status.setdefault("credentials", {})["rotation"] = done


async def tend_rotation(work: Work) -> None:
    """Give the next login to the sidecars once all stores take it, and forget the former one once it is dropped.

    Raises OperatorFault.
    """
    if work.frozen or not work.logins or not work.is_whole:
        return
    changes: logins.Changes = {}
    upcoming = logins.upcoming(work.logins, work.stores)
    if upcoming is not None:
        if not await _is_accepted(work, upcoming):
            work.progress("the stores are to take the next login", again=_PAUSE)
            return
        changes = logins.promote(work.logins, work.clock(), work.stores)
        work.status.setdefault("credentials", {}).update(
            rotation=work.logins["next-for"], rotatedAt=stamp(work.clock())
        )
        work.progress("the sidecars move to the next login")
    elif work.dropped == set(work.stores):
        changes = logins.forget(work.logins)
    if changes:
        name = child(work.memory.name, "credentials")
        live = await work.objects.get(SECRET, name)
        if live is not None and secret_data(live) == work.logins:
            await work.objects.change_secret(live, changes)
        work.soon(_PAUSE)


async def _is_accepted(work: Work, upcoming: logins.Logins) -> bool:
    """Whether all stores take this login, asked on the way that the sidecars go."""
    try:
        async with Sight(work, upcoming) as sight:
            reasons = await sight.check()
    except MemoryFault:
        return False
    return not set(work.stores) & set(reasons)
