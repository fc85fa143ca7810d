"""Intake: a turn is one transaction, which locks its agent's row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agentmemory_engine.answers import Receipt
from agentmemory_engine.batches import EventRow, event_columns, rows_of, session_columns, sessions_of
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.journal import ABSENT, ANY, JournalEntry, Submission, key_reused, version_conflict
from agentmemory_engine.keys import digest_agent, digest_key, event_id
from agentmemory_engine.models import Models
from agentmemory_engine.positions import Entry, Position
from agentmemory_engine.postgres import POISON, Postgres, Session
from agentmemory_engine.postgres_only.positions import Taken, take_position
from agentmemory_engine.progress import Progress
from agentmemory_engine.settings import Settings
from agentmemory_engine.working import WRITTEN, Stored, format_stored


class _Known(Exception):
    """The turn was accepted before, at this entry; nothing is to be committed."""

    def __init__(self, entry: Entry, version: Entry | None) -> None:
        super().__init__()
        self.entry = entry
        self.version = version


@dataclass(frozen=True)
class _Turn:
    """A turn while it is accepted."""

    submission: Submission
    agent: bytes
    key: bytes


class Intake:
    """Accepts turns into Postgres. There is no recent window: the timeline answers at once."""

    def __init__(self, postgres: Postgres, settings: Settings, progress: Progress, models: Models) -> None:
        self._postgres = postgres
        self._settings = settings
        self._progress = progress
        self._models = models

    async def append(self, turn: Submission) -> Receipt:
        """As Intake has it. What Postgres refuses for the turn's own sake is InvalidInput, with nothing applied."""
        accepting = _Turn(turn, digest_agent(turn.agent), digest_key(turn.key))
        try:
            async with self._models.writing() as session:
                entry, version = await self._accept(session, accepting)
        except _Known as known:
            return self._receipt(accepting, known.entry, known.version, repeated=True)
        except POISON as error:
            raise InvalidInput(f"Postgres refuses the turn, and nothing of it was stored: {error}.") from error
        await self._progress.report()
        return self._receipt(accepting, entry, version, repeated=False)

    def _receipt(self, turn: _Turn, entry: Entry, version: Entry | None, *, repeated: bool) -> Receipt:
        agent = turn.submission.agent
        shard = self._settings.shard_of(agent)
        return Receipt(
            position=Position(shard, entry),
            version=None if version is None else Position(shard, version),
            events=[event_id(agent, turn.key, index) for index in range(turn.submission.count)],
            repeated=repeated,
        )

    async def _accept(self, session: Session, turn: _Turn) -> tuple[Entry, Entry | None]:
        """Its entry, and the document's version after it. Raises _Known, KeyReused, VersionConflict."""
        taken = await take_position(session, self._postgres, turn.agent)
        await self._check_key(session, turn)
        document = await self._live(session, turn) if taken.leased else None
        writes = self._check_document(turn, document)
        before = document.version if document else None
        await self._insert(session, turn, taken, before)
        version = taken.entry if writes else before
        if writes:
            await self._write(session, turn, taken.entry)
        await self._remember(session, turn, taken.entry, version)
        return taken.entry, version

    async def _check_key(self, session: Session, turn: _Turn) -> None:
        row = await session.fetchrow(self._postgres.query("turn_before"), turn.agent, turn.key)
        if row is None:
            return
        if row["fingerprint"] != turn.submission.fingerprint:
            raise key_reused()
        version = row["version_opening"], row["version_sequence"]
        raise _Known(Entry(row["opening"], row["sequence"]), None if version[0] is None else Entry(*version))

    async def _live(self, session: Session, turn: _Turn) -> Stored | None:
        row = await session.fetchrow(self._postgres.query("live_document"), turn.submission.agent, turn.agent)
        return None if row is None else _stored(row)

    def _check_document(self, turn: _Turn, document: Stored | None) -> bool:
        """Whether this turn writes the document, or its tombstone."""
        change = turn.submission.change
        if not change.kind:
            return False
        if document is not None and document.writer == turn.key:
            # The key was forgotten, but the document knows it: this turn has written it already.
            if document.fingerprint != turn.submission.fingerprint:
                raise key_reused()
            if not turn.submission.count:
                raise _Known(document.version, document.version)
            return False
        if change.expected == ANY:
            return True
        current = None if document is None else document.version
        living = document is not None and document.kind == WRITTEN
        fits = not living if change.expected == ABSENT else change.expected == str(current)
        if not fits:
            raise version_conflict(self._settings.shard_of(turn.submission.agent), current)
        return True

    async def _insert(self, session: Session, turn: _Turn, taken: Taken, version: Entry | None) -> None:
        rows = rows_of(_journal_entry(turn.submission, turn.key, taken))
        if not rows:
            return
        query, shard = self._postgres.query, self._settings.shard_of(turn.submission.agent)
        inserted = await session.fetchval(query("insert_events"), *event_columns(rows), shard)
        if inserted < len(rows):
            await self._find_before(session, rows, version)
        if sessions := sessions_of(rows):
            await session.execute(query("upsert_sessions"), *session_columns(sessions))

    async def _find_before(self, session: Session, rows: list[EventRow], version: Entry | None) -> None:
        """The turn's key was forgotten, but events of it are there. Raises _Known or KeyReused."""
        query = self._postgres.query
        agents, ids = [row.agent for row in rows], [row.id for row in rows]
        if await session.fetch(query("find_other_bodies"), agents, ids, [row.fingerprint for row in rows]):
            raise key_reused()
        row = await session.fetchrow(query("first_position"), agents[0], ids)
        assert row is not None
        raise _Known(Entry(row["opening"], row["sequence"]), version)

    async def _write(self, session: Session, turn: _Turn, entry: Entry) -> None:
        submission, change = turn.submission, turn.submission.change
        await session.execute(
            self._postgres.query("insert_snapshots"),
            [submission.agent], [turn.agent], [entry.opening], [entry.sequence], [change.kind], [turn.key],
            [submission.fingerprint], [change.body], self._settings.snapshots_kept,
            self._settings.shard_of(submission.agent), [submission.count],
        )  # fmt: skip

    async def _remember(self, session: Session, turn: _Turn, entry: Entry, version: Entry | None) -> None:
        """Keep the key for its window, and renew the document's lease where there is one."""
        settings = self._settings
        await session.execute(
            self._postgres.query("remember_turn"),
            turn.agent, turn.key, turn.submission.fingerprint, *entry, *(version or (None, None)),
            timedelta(seconds=settings.idempotency_window),
            None if version is None else timedelta(seconds=settings.ttl),
        )  # fmt: skip

    async def is_known(self, agent: str, key: str) -> bool:
        """As Intake has it."""
        return await self._postgres.fetchrow("turn_before", digest_agent(agent), digest_key(key)) is not None

    async def document(self, agent: str) -> bytes | None:
        """As Intake has it."""
        row = await self._postgres.fetchrow("live_document", agent, digest_agent(agent))
        return None if row is None else format_stored(_stored(row))

    async def window(self, agent: str, limit: int) -> list[bytes]:
        """None: the timeline has them all."""
        return []


def _journal_entry(turn: Submission, key: bytes, taken: Taken) -> JournalEntry:
    accepted_ms = int(taken.accepted_at.timestamp() * 1000)
    return JournalEntry(
        taken.entry, turn.agent, accepted_ms, key, turn.fingerprint, turn.session, turn.events, turn.change.kind
    )


def _stored(row: Any) -> Stored:
    return Stored(
        Entry(row["opening"], row["sequence"]), row["kind"].decode(), row["writer"], row["fingerprint"], row["events"],
        row["body"],
    )  # fmt: skip
