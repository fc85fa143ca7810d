"""Working memory whose lease ends for good."""

from __future__ import annotations

from agentmemory_engine.answers import Document
from agentmemory_engine.errors import DocumentExpired, NoDocument, NoSnapshot, UnreadableDocument
from agentmemory_engine.positions import Position
from agentmemory_engine.redis_only.log import Log
from agentmemory_engine.settings import Settings
from agentmemory_engine.working import Documents, never_written


class LeasedDocuments(Documents):
    """Documents of which no snapshot is kept."""

    def __init__(self, log: Log, settings: Settings) -> None:
        super().__init__(log, settings)
        self._log = log

    async def _why_none(self, agent: str) -> NoDocument | DocumentExpired | UnreadableDocument:
        if not await self._log.had_document(agent):
            return never_written()
        return DocumentExpired(
            "The working memory was not used for its ttl and has expired, for good in mode Redis; a write starts a new "
            "one.",
            version=None,
        )

    async def last_snapshot(self, agent: str) -> Document | None:
        """None."""
        return None

    async def snapshot(self, agent: str, version: Position) -> Document:
        """Raises NoSnapshot."""
        raise NoSnapshot("Mode Redis keeps no snapshots of working memory.")
