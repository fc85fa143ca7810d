"""Dead letters, where there are none: what is accepted is kept as it is, and no other store can refuse it."""

from __future__ import annotations

import builtins
from datetime import datetime
from uuid import UUID

from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.errors import NoDeadLetter

_NONE = "There is no such dead letter: mode Redis has none."


class NoDeadLetters:
    """There is never one."""

    async def list(
        self, *, after: tuple[datetime, str, UUID] | None = None, limit: int = 100
    ) -> builtins.list[DeadLetter]:
        """None."""
        return []

    async def discard(self, agent: str, letter: UUID) -> None:
        """Raises NoDeadLetter."""
        raise NoDeadLetter(_NONE)

    async def replay(self, agent: str, letter: UUID) -> None:
        """Raises NoDeadLetter."""
        raise NoDeadLetter(_NONE)
