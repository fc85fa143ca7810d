"""Intake: what accepts turns, and has the current document and the recent window of each agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agentmemory_engine.answers import Receipt
    from agentmemory_engine.journal import Submission


class Foreign(Exception):
    """What stands in the place of a document is of another kind than documents are; `value` is all of it, as bytes."""

    def __init__(self, value: bytes) -> None:
        super().__init__()
        self.value = value


class Intake(Protocol):
    """Every call raises StoreUnavailable, and ShardClosed where there are openings."""

    async def append(self, turn: Submission) -> Receipt:
        """Accept a turn, atomically with its change of the document.

        The same key with the same body answers the first receipt. Raises KeyReused, VersionConflict, and what the store
        has against a write: JournalFull, WrongEvictionPolicy, UnreadableDocument, InvalidInput.
        """
        ...

    async def is_known(self, agent: str, key: str) -> bool:
        """Whether a turn with this key was accepted within the window."""
        ...

    async def document(self, agent: str) -> bytes | None:
        """The document or a deletion's tombstone as working.format_stored makes it; None where none is live.

        Raises Foreign.
        """
        ...

    async def window(self, agent: str, limit: int) -> list[bytes]:
        """The last messages that it holds, oldest first, as events.event_of_window reads them; maybe none."""
        ...
