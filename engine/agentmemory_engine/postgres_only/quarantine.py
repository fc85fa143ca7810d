"""Quarantine where the document is the last snapshot itself."""

from __future__ import annotations

from agentmemory_engine.keys import digest_agent
from agentmemory_engine.postgres import Session
from agentmemory_engine.quarantine import Snapshots


class Quarantine(Snapshots):
    """Sets aside what cannot be read. An earlier snapshot does not become the document by that: it is restored on
    request, as after the end of a lease."""

    async def _lock(self, session: Session, agent: str) -> None:
        await session.execute(self._postgres.query("lock_agent"), digest_agent(agent))

    async def _moved(self, session: Session, agent: str) -> None:
        await session.execute(self._postgres.query("end_lease"), digest_agent(agent))
