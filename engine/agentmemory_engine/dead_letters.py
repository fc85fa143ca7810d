"""Dead letters: events that Postgres refuses for their own sake, kept, listed and replayable; and documents that are no
JSON object, kept until someone has read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.batches import EventRow, event_columns, session_columns, sessions_of
from agentmemory_engine.errors import InvalidInput, NoDeadLetter
from agentmemory_engine.keys import event_id
from agentmemory_engine.models import Models
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import POISON, Postgres, Session
from agentmemory_engine.turns import Event

EVENT = "event"


class DeadLetters:
    """The dead letters of one memory."""

    def __init__(self, postgres: Postgres, models: Models) -> None:
        self._postgres = postgres
        self._models = models

    async def list(self, *, after: tuple[datetime, str, UUID] | None = None, limit: int = 100) -> list[DeadLetter]:
        """Oldest first. Raises StoreUnavailable."""
        rows = await self._postgres.fetch("list_dead_letters", *(after or (None, None, None)), limit)
        return [_letter(row) for row in rows]

    async def read(self, agent: str, letter: UUID) -> DeadLetter:
        """One of them. Raises NoDeadLetter, StoreUnavailable."""
        row = await self._postgres.fetchrow("get_dead_letter", agent, letter)
        if row is None:
            raise no_letter()
        return _letter(row)

    async def discard(self, agent: str, letter: UUID) -> None:
        """Delete one for good. Raises NoDeadLetter, StoreUnavailable."""
        if await self._postgres.fetchrow("take_dead_letter", agent, letter) is None:
            raise no_letter()

    async def replay(self, agent: str, letter: UUID) -> None:
        """Put one into episodic memory, in one transaction.

        Raises NoDeadLetter, StoreUnavailable, and InvalidInput for a document, or when Postgres refuses it again; then
        it stays.
        """
        try:
            async with self._models.writing() as session:
                await session.execute(self._postgres.query("lock_letter_shard"), agent, letter)
                row = await session.fetchrow(self._postgres.query("take_dead_letter"), agent, letter)
                if row is None:
                    raise no_letter()
                if row["kind"] != EVENT:
                    raise is_document()
                await self._insert(session, row)
        except POISON as error:
            raise InvalidInput(f"Postgres refuses it still, and it stays a dead letter: {error}.") from error

    async def _insert(self, session: Session, row: Any) -> None:
        query = self._postgres.query
        events = _event_rows(row)
        await session.fetchval(query("insert_events"), *event_columns(events), row["shard"])
        if sessions := sessions_of(events):
            await session.execute(query("upsert_sessions"), *session_columns(sessions))
        await session.execute(query("bump_revision"), [row["agent_id"]])


def is_document() -> InvalidInput:
    """What is said of a document that is to be replayed."""
    return InvalidInput(
        "It is a document, which is not replayed: read its bytes, write what is right to the agent's working memory, "
        "and discard it."
    )


def no_letter() -> NoDeadLetter:
    """What is said where there is none."""
    return NoDeadLetter("There is no such dead letter; it may have been replayed or discarded.")


def _letter(row: Any) -> DeadLetter:
    return DeadLetter(
        kind=row["kind"],
        id=row["id"],
        agent=row["agent_id"],
        position=Position(row["shard"], Entry(row["opening"], row["sequence"])),
        index=row["index"],
        reason=row["reason"],
        sqlstate=row["sqlstate"],
        raw=row["raw"],
        dead_at=row["dead_at"],
    )


def _event_rows(row: Any) -> list[EventRow]:
    """The event in a dead letter; or the events of a whole turn, which is kept as it was when it crashed the worker.

    Raises InvalidInput.
    """
    raw: bytes = row["raw"]
    try:
        events = msgspec.json.decode(raw if raw.startswith(b"[") else b"[" + raw + b"]", type=list[Event])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"Its JSON is no event, and it stays a dead letter: {error}.") from None
    return [
        EventRow(
            row["agent_id"], row["id"] if number == 0 else event_id(row["agent_id"], row["id"].bytes, number),
            Entry(row["opening"], row["sequence"]), row["index"] + number, event.at or row["accepted_at"],
            row["accepted_at"], row["fingerprint"], row["session_id"], event,
        )
        for number, event in enumerate(events)
    ]  # fmt: skip
