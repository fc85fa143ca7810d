"""Export of what Redis keeps of an agent, and the way back in for sessions and knowledge."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.export import Added, Export, Fact, LetterLine, Line, SessionLine, document_of, events_of
from agentmemory_engine.jsonb import given_json
from agentmemory_engine.parts import Episodic, Working
from agentmemory_engine.positions import Position
from agentmemory_engine.redis_only.beliefs import Beliefs, FactRow
from agentmemory_engine.redis_only.dead_letters import DeadLetters
from agentmemory_engine.redis_only.meetings import SessionRow, completed, joined
from agentmemory_engine.redis_only.records import Amendment, RecordStore
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import decode


class Exporter:
    """Reads everything of an agent."""

    def __init__(
        self, events: Episodic, working: Working, records: RecordStore, letters: DeadLetters, settings: Settings, *,
        embed: bool,
    ) -> None:  # fmt: skip
        self._events = events
        self._working = working
        self._records = records
        self._letters = letters
        self._settings = settings
        self._embed = embed

    async def begin(self, agent: str) -> Export:
        """Fix where the export ends, with the document as it was there. Raises ShardClosed, StoreUnavailable."""
        # In this order, or the document could be of a turn that is past the end.
        document, expired = await document_of(self._working, agent)
        unflushed = await self._events.unflushed(agent)
        position = Position(self._settings.shard_of(agent), unflushed.read)
        if document is not None:
            # Its turn may be one that was let go of.
            position = max(position, document.version)
        return Export(agent, position, document, expired, unflushed)

    async def lines(self, export: Export) -> AsyncGenerator[Line, None]:
        """Sessions, events in order, knowledge, dead letters. Raises ShardClosed, StoreUnavailable in the middle."""
        records = await self._records.read(export.agent, met=True)
        for session, row in sorted(joined(records.sessions, records.met).items()):
            yield SessionLine(
                session=session, started_at=row.started_at, last_event_at=row.last_event_at, ended_at=row.ended_at,
                metadata=None if row.metadata is None else row.metadata.encode(),
            )  # fmt: skip
        async with aclosing(events_of(self._events, export)) as events:
            async for event in events:
                yield event
        facts = (await self._records.read(export.agent)).facts.values()
        for fact in sorted(facts, key=lambda fact: (fact.believed_from, fact.id)):
            yield Fact(fact.encode())
        for letter in await self._letters.of_agent(export.agent):
            yield LetterLine(
                kind=letter.kind, id=letter.id, position=letter.position, index=letter.index, session=None,
                accepted_at=letter.dead_at, reason=letter.reason, sqlstate=None, raw=letter.raw, dead_at=letter.dead_at,
            )  # fmt: skip

    async def take(self, agent: str, sessions: Sequence[SessionLine], facts: Sequence[Fact]) -> Added:
        """Store sessions and knowledge of an export for an agent, all or nothing; what is there already stays as it is.

        Raises InvalidInput, JournalFull, WrongEvictionPolicy, ShardClosed, StoreUnavailable.
        """
        rows = [_fact(fact) for fact in facts]
        async with self._records.alone(agent) as editing:
            while True:
                records = await editing.read(met=True)
                known = joined(records.sessions, records.met)
                for one in sessions:
                    given_json(one.metadata)
                given = {one.session: completed(known.get(one.session), _session(one)) for one in sessions}
                changed = {session: row for session, row in given.items() if row != known.get(session)}
                beliefs = Beliefs(records.facts, records.now)
                added = beliefs.take(rows)
                change = Amendment(sessions=changed, facts=beliefs.changed, waiting=beliefs.added if self._embed else 0)
                if not (changed or added) or await editing.make(records, change):
                    return Added(len(changed), added)


def _fact(line: Fact) -> FactRow:
    try:
        return decode(line.row, FactRow)
    except InvalidInput as error:
        raise InvalidInput(f"A fact of the import is none, and nothing of it was stored: {error}") from None


def _session(line: SessionLine) -> SessionRow:
    return SessionRow(
        started_at=line.started_at, last_event_at=line.last_event_at, ended_at=line.ended_at,
        metadata=None if line.metadata is None else line.metadata.decode(),
    )  # fmt: skip
