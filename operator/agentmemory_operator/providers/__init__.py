"""Where a memory's stores come from: one file a kind of store, behind one Protocol."""

from __future__ import annotations

from typing import Protocol

from agentmemory_operator.work import Access, Work


class Provider(Protocol):
    """One store of a memory."""

    async def provide(self, work: Work) -> Access:
        """Leave the store as declared, and answer how to reach it as its administrator.

        Raises Waiting while it starts, Blocked and Refused with what stands in the way.
        """
        ...
