"""The tail, where there is none: what is acknowledged is in Postgres."""

from __future__ import annotations

from agentmemory_engine.tail import Unflushed


class NoTail:
    """Tells that nothing is unflushed."""

    async def unflushed(self, agent: str) -> Unflushed:
        """Nothing, of whatever agent."""
        return Unflushed([])
