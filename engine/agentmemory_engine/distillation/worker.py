"""The worker: takes a session from the queue, asks the model about a part of it, stores what it says, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.complaints import Complaints
from agentmemory_engine.distillation.chat import Chat, read_prompt
from agentmemory_engine.distillation.errors import Declined, Nonsense, Refusal
from agentmemory_engine.distillation.facts import prefix_of, read_facts
from agentmemory_engine.distillation.transcript import Part, is_enough, make_part
from agentmemory_engine.endpoint import TimedOut
from agentmemory_engine.errors import InvalidInput, StoreUnavailable, Unavailable
from agentmemory_engine.events import Events, Filter, TimelineQuery
from agentmemory_engine.facts import NewFact
from agentmemory_engine.knowledge import Knowledge
from agentmemory_engine.observer import Observer
from agentmemory_engine.positions import Entry
from agentmemory_engine.postgres import Postgres, Session
from agentmemory_engine.settings import Settings
from agentmemory_engine.timeline_cursors import Place, format_cursor

logger = logging.getLogger(__name__)

_SYSTEM = "facts.md"
_PAGE = 100
_LOOK_EVERY = 1.0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a session may cost. Times are in seconds, `tokens` (estimated) are of the events in one question.

    After `attempts` refusals in a row it is given up; between them it rests for `first`, then twice that, up to
    `longest`. `claim` is longer than any question takes.
    """

    tokens: int = 8000
    attempts: int = 3
    first: float = 30.0
    longest: float = 3600.0
    claim: float = 600.0

    def rest(self, attempts: int) -> timedelta:
        """After so many refusals."""
        return timedelta(seconds=min(self.longest, self.first * 2.0 ** min(attempts - 1, 30)))


class Job(NamedTuple):
    """A claimed session. `after` is the last event that is done; `attempts` were refused in a row."""

    agent: str
    session: str
    request: UUID
    after: Place | None
    attempts: int

    @classmethod
    def of(cls, row: Any) -> Job:
        after = None if row["opening"] is None else Place(Entry(row["opening"], row["sequence"]), row["index"])
        return cls(row["agent_id"], row["session_id"], row["request"], after, row["attempts"])


class Superseded(Exception):
    """The session was erased, asked for anew, or taken over: what was made of it is dropped."""


class Distiller:
    """One session at a time; any number of sidecars share the queue."""

    def __init__(
        self, postgres: Postgres, events: Events, knowledge: Knowledge, chat: Chat, settings: Settings,
        observer: Observer, bounds: Bounds,
    ) -> None:  # fmt: skip
        self._postgres = postgres
        self._events = events
        self._knowledge = knowledge
        self._chat = chat
        self._settings = settings
        self._observer = observer
        self._bounds = bounds
        self._claim = timedelta(seconds=bounds.claim)
        self._complaints = Complaints(logger, "distillation waits")
        self._system = read_prompt(_SYSTEM)

    async def run(self) -> None:
        """Work until cancelled. An endpoint or a store that is down is waited for, with a growing pause."""
        pause = _LOOK_EVERY
        released = False
        while True:
            try:
                if not released:
                    await self._release()
                    released = True
                while await self.distill_one():
                    pause = _LOOK_EVERY
                self._complaints.end()
            except Unavailable as error:
                self._observer.failed("distillation")
                self._complaints.say(error)
                pause = min(pause * 2, 30.0)
            except Exception:
                self._observer.failed("distillation")
                logger.exception("distillation failed; the queue keeps what is pending, and it is tried again")
                pause = min(pause * 2, 30.0)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Give back what is claimed, and let go of the endpoint."""
        await self._chat.close()
        with contextlib.suppress(Unavailable):
            await self._release()

    async def _release(self) -> None:
        """Let others go on with what we, or an earlier run of us, had claimed."""
        await self._postgres.fetch("release_distillations", self._settings.instance)

    async def distill_one(self) -> bool:
        """Distil the session that has waited the longest; was there one?. Raises Unavailable: then it waits on."""
        rows = await self._postgres.fetch("claim_distillation", self._claim, self._settings.instance)
        if not rows:
            return False
        job = Job.of(rows[0])
        try:
            if await self._is_pending(job):
                await self._postpone(job, timedelta(seconds=self._settings.max_delay))
                return True
            await self._distill(job)
        except Superseded:
            logger.info("a session was erased, or asked for anew, while facts were drawn from it")
        except Unavailable:
            with contextlib.suppress(StoreUnavailable):
                await self._postpone(job, timedelta())
            raise
        return True

    async def _is_pending(self, job: Job) -> bool:
        """Whether some of it is not in Postgres yet: a source is an event that is there. Raises StoreUnavailable."""
        unflushed = await self._events.unflushed(job.agent)
        if unflushed.events is None:
            raise StoreUnavailable("redis", "it does not answer, and a session without what it holds is not whole.")
        return any(event.session == job.session for event in unflushed.events)

    async def _distill(self, job: Job) -> None:
        while True:
            events = await self._read(job)
            if not events:
                return await self._finish(job)
            try:
                part, facts = await self._draw(job, events, self._bounds.tokens)
                await self._store(job, part, facts)
            except Refusal as refusal:
                return await self._refuse(job, str(refusal))
            job = job._replace(after=part.last, attempts=0)

    async def _read(self, job: Job) -> list[StoredEvent]:
        """What comes next of the session, as much as may fit into a question; nothing at its end."""
        query = TimelineQuery(filter=Filter(session=job.session), limit=_PAGE)
        cursor = None if job.after is None else format_cursor([job.after], query.fingerprint([job.agent]))
        found: list[StoredEvent] = []
        while True:
            page = await self._events.timeline(
                job.agent, TimelineQuery(filter=query.filter, limit=_PAGE, cursor=cursor)
            )  # fmt: skip
            if page.degraded:
                raise StoreUnavailable("redis", "it does not answer, and a session without what it holds is not whole.")
            found += page.events
            cursor = page.cursor
            if cursor is None or is_enough(found, self._bounds.tokens):
                return found

    async def _draw(self, job: Job, events: list[StoredEvent], tokens: int) -> tuple[Part, list[NewFact]]:
        """Ask about the first of the events; about fewer of them where the model cannot do with so many.

        Raises Refusal, Superseded, ProviderUnavailable, StoreUnavailable.
        """
        part = make_part(events, tokens)
        try:
            answer = await self._ask(part)
        except Declined:
            if len(part) == 1:
                raise
            # Another who took it over meanwhile would come no further, and all of it would be asked twice.
            if not await self._postgres.fetch(
                "renew_distillation", job.agent, job.session, job.request, self._settings.instance, self._claim
            ):
                raise Superseded from None
            return await self._draw(job, events[: len(part) // 2], tokens)
        return part, read_facts(answer, part.sources, session=job.session, model=self._chat.model)

    async def _ask(self, part: Part) -> str:
        try:
            return await self._chat.ask(self._system, part.text)
        except TimedOut as error:
            if not await self._chat.is_well():
                raise
            raise Declined(f"it takes too long: {error}") from None

    async def _store(self, job: Job, part: Part, facts: list[NewFact]) -> None:
        """The facts, and how far the session is done, in one transaction. Raises Superseded, Nonsense."""
        keys = [fact.key for fact in facts]
        try:
            async with self._knowledge.alone(job.agent) as session:
                await self._hold(session, job)
                for fact in facts:
                    await self._knowledge.tell(session, job.agent, fact)
                await session.execute(
                    self._postgres.query("advance_distillation"),
                    job.agent, job.session, self._claim, *part.last.entry, part.last.number, keys,
                )  # fmt: skip
        except InvalidInput as error:
            raise Nonsense(f"a fact cannot be stored: {error}") from None
        self._observer.distilled(len(facts))

    async def _finish(self, job: Job) -> None:
        """End the belief in what was drawn before, and not this time. Raises Superseded."""
        query = self._postgres.query
        async with self._knowledge.alone(job.agent) as session:
            keys = await self._hold(session, job)
            if job.after is not None:
                await session.execute(query("end_undrawn"), job.agent, prefix_of(job.session), keys)
            await session.execute(query("drop_distillation"), job.agent, job.session)

    async def _hold(self, session: Session, job: Job) -> list[str]:
        """The keys of the facts so far, while the job is ours. Raises Superseded."""
        row = await session.fetchrow(
            self._postgres.query("hold_distillation"), job.agent, job.session, job.request, self._settings.instance
        )
        if row is None:
            raise Superseded
        return list(row["keys"])

    async def _refuse(self, job: Job, reason: str) -> None:
        """Count it against the session; at last give it up."""
        attempts = job.attempts + 1
        give_up = attempts >= self._bounds.attempts
        logger.warning("a session is not distilled%s: %s", ", and is given up" if give_up else "", reason)
        await self._postpone(job, self._bounds.rest(attempts), reason[:500], give_up=give_up)

    async def _postpone(self, job: Job, rest: timedelta, reason: str | None = None, *, give_up: bool = False) -> None:
        await self._postgres.fetch(
            "postpone_distillation", job.agent, job.session, job.request, self._settings.instance, rest, reason, give_up
        )
