"""Knowledge: facts with their history. What was believed is never rewritten; each change is a version of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID, uuid4

from msgspec import Meta

from agentmemory_engine.answers import Fact, FactPage, FoundFacts
from agentmemory_engine.cursors import format_place, parse_place
from agentmemory_engine.declared import Declared
from agentmemory_engine.errors import FactEnded, InvalidInput, KeyReused, NoFact
from agentmemory_engine.fact_search import FactQuery, FactSearch
from agentmemory_engine.facts import Belief, FactChange, FactFilter, NewFact, fact_of, fingerprint
from agentmemory_engine.keys import check_agent, digest_key, fact_id, shard_of
from agentmemory_engine.postgres import POISON, Postgres, Session
from agentmemory_engine.progress import Progress
from agentmemory_engine.settings import Settings


@dataclass(frozen=True, kw_only=True)
class KnowledgeQuery:
    """A page of facts, newest belief first: what is believed now, or at the filter's time.

    `history` lists what is no longer believed as well; `versions_of` only the versions of the fact with this id, all
    of them unless the filter names a time.
    """

    filter: FactFilter = field(default_factory=FactFilter)
    history: bool = False
    versions_of: UUID | None = None
    limit: int = 100
    cursor: str | None = None


_LANES = 64


class Place(NamedTuple):
    """Where a page ended, and the time whose beliefs are listed (None: all times)."""

    believed_from: Annotated[datetime, Meta(tz=True)]
    id: UUID
    at: Annotated[datetime, Meta(tz=True)] | None


class Knowledge:
    """The facts of one memory. An agent's are written by one writer at a time, so that beliefs follow each other.

    Every call raises InvalidAgentId, InvalidInput for a value that Postgres cannot hold, and StoreUnavailable. A write
    is durable when it is answered, and waits for no embedding.
    """

    def __init__(
        self, postgres: Postgres, declared: Declared, search: FactSearch, settings: Settings, progress: Progress
    ) -> None:
        self._postgres = postgres
        self._declared = declared
        self._search = search
        self._settings = settings
        self._progress = progress
        self._turns = [asyncio.Lock() for _ in range(_LANES)]
        """Writers of one agent wait here for one another, and not each with a connection."""

    async def put(self, agent: str, new: NewFact, *, key: str | None = None) -> tuple[Fact, bool]:
        """The fact, and whether it is a new version. What its key says already, word for word, changes nothing.

        `key` makes a repetition harmless: it answers the version that the first request made. Where that made none,
        since it said what was believed, or where it is erased, a repetition is a request of its own. Raises KeyReused.
        """
        belief, identity, body = Belief.of(new), identity_of(agent, key), fingerprint(new)
        async with self.alone(agent) as session:
            if (known := await self._row(session, "get_fact", agent, identity)) is not None:
                return repeated(known, body), False
            before = None
            if new.key is not None:
                before = await self._row(session, "fact_by_key", agent, new.key)
            return await self._succeed(session, agent, identity, body, new.key, before, belief)

    async def tell(self, session: Session, agent: str, new: NewFact) -> Fact:
        """As `put`, within `alone`. Raises InvalidInput."""
        identity = identity_of(agent, None)
        before = None if new.key is None else await self._row(session, "fact_by_key", agent, new.key)
        fact, _ = await self._succeed(session, agent, identity, fingerprint(new), new.key, before, Belief.of(new))
        return fact

    async def change(
        self, agent: str, identity: UUID, change: FactChange, *, key: str | None = None
    ) -> tuple[Fact, bool]:
        """The version after the change, and whether it is a new one. A repetition with the same `key` answers it again.

        Raises NoFact, FactEnded, KeyReused.
        """
        following, body = identity_of(agent, key), fingerprint(change, identity)
        async with self.alone(agent) as session:
            if (known := await self._row(session, "get_fact", agent, following)) is not None:
                return repeated(known, body), False
            row = await self._existing(session, agent, identity)
            if row["believed_until"] is not None:
                raise await self._ended(session, agent, row)
            belief = Belief.after(fact_of(row), change)
            return await self._succeed(session, agent, following, body, row["key"], row, belief)

    async def end(self, agent: str, identity: UUID) -> Fact:
        """Believe it no longer; what was believed until now stays. Ending it twice is harmless.

        Raises NoFact, and FactEnded where another version of it is believed by now.
        """
        check_agent(agent)
        async with self.alone(agent) as session:
            row = await self._existing(session, agent, identity)
            if row["believed_until"] is None:
                row = await self._row(session, "end_fact", agent, identity)
            elif (ended := await self._ended(session, agent, row)).current is not None:
                raise ended
            return fact_of(row)

    async def erase(self, agent: str, identity: UUID) -> int:
        """Remove every version of a fact, and all that was ever believed under its key; how many. Raises NoFact."""
        check_agent(agent)
        async with self.alone(agent) as session:
            row = await self._existing(session, agent, identity)
            erased = await session.fetch(self._postgres.query("erase_fact"), agent, row["origin"], row["key"])
        return len(erased)

    async def read(self, agent: str, identity: UUID) -> Fact:
        """One version of a fact, believed or not. Raises NoFact."""
        row = await self._postgres.fetchrow("get_fact", check_agent(agent), identity)
        if row is None:
            raise no_fact()
        return fact_of(row)

    async def page(self, agent: str, query: KnowledgeQuery) -> FactPage:
        """A page of facts. Later pages list what was believed when the first was read, whatever is written since."""
        check_agent(agent)

        async def listed(wanted: FactFilter, every: bool, after: Place | None) -> tuple[list[Fact], datetime | None]:
            rows = await self._postgres.ask(
                "list_facts", agent, *wanted.parameters(), every, query.versions_of, *(after or (None, None))[:2],
                query.limit + 1,
            )  # fmt: skip
            return [fact_of(row) for row in rows], rows[0]["as_of"] if rows else None

        return await page_of(agent, query, listed)

    async def search(self, agent: str, query: FactQuery) -> FoundFacts:
        """The facts that match best, as an exhaustive scan ranks them. Raises RecallUnavailable."""
        return await self._search.search(check_agent(agent), query)

    async def _succeed(
        self, session: Session, agent: str, identity: UUID, body: bytes, key: str | None, before: Any, belief: Belief
    ) -> tuple[Fact, bool]:
        """Believe it in the place of `before` (None: of nothing), unless that says the same."""
        since = None
        if before is not None:
            if await session.fetchval(self._postgres.query("says_the_same"), agent, before["id"], *belief.columns()):
                return fact_of(before), False
            since = (await self._row(session, "end_fact", agent, before["id"]))["believed_until"]
        origin = identity if before is None else before["origin"]
        shard = self._settings.shard_of(agent)
        row = await self._row(
            session, "insert_fact", agent, identity, origin, key, *belief.columns(), body, shard, since
        )
        return fact_of(row), True

    async def _existing(self, session: Session, agent: str, identity: UUID) -> Any:
        row = await self._row(session, "get_fact", agent, identity)
        if row is None:
            raise no_fact()
        return row

    async def _ended(self, session: Session, agent: str, row: Any) -> FactEnded:
        current = await self._row(session, "current_version", agent, row["origin"])
        return no_longer_believed(None if current is None else current["id"])

    async def _row(self, session: Session, query: str, *args: Any) -> Any:
        return await session.fetchrow(self._postgres.query(query), *args)

    @asynccontextmanager
    async def alone(self, agent: str) -> AsyncIterator[Session]:
        """A transaction that no other writer of this agent's knowledge shares, and no mark of an erasure."""
        try:
            async with (
                self._turns[shard_of(agent, _LANES)],
                self._declared.transaction(agent, alone=True) as session,
            ):
                yield session
        except POISON as error:
            raise InvalidInput(f"A value in the request cannot be stored: {error}.") from None
        await self._progress.report()


Listed = Callable[[FactFilter, bool, Place | None], Awaitable[tuple[list[Fact], datetime | None]]]
"""Lists one fact more than fit on a page: of a filter, believed at its time or ever, past a place; and up to when what
was written is seen."""


async def page_of(agent: str, query: KnowledgeQuery, listed: Listed) -> FactPage:
    """The page that a query asks for. Raises InvalidInput."""
    if query.history and query.filter.at is not None:
        raise InvalidInput("`history` lists all times; leave it or `at` out.")
    asked = (agent, *query.filter.parameters(), query.history, query.versions_of)
    after = parse_place(query.cursor, Place, *asked) if query.cursor else None
    every = query.history or query.versions_of is not None
    wanted = query.filter if after is None else replace(query.filter, at=after.at)
    found, as_of = await listed(wanted, every, after)
    facts = found[: query.limit]
    if len(found) <= query.limit:
        return FactPage(facts, None)
    at = wanted.at or (None if every else as_of)
    return FactPage(facts, format_place(Place(facts[-1].believed_from, facts[-1].id, at), *asked))


def identity_of(agent: str, key: str | None) -> UUID:
    """The id of the version that a request with this key makes. Raises InvalidAgentId."""
    return fact_id(check_agent(agent), digest_key(key or uuid4().hex))


def repeated(row: Any, body: bytes) -> Fact:
    """What a repetition of the request that made this version answers. Raises KeyReused."""
    if row["fingerprint"] != body:
        raise KeyReused("This idempotency key was used for another fact; take a new key for a new one.")
    return fact_of(row)


def no_longer_believed(current: UUID | None) -> FactEnded:
    """What is said of a version that is no longer believed; `current` is the one that is."""
    if current is None:
        return FactEnded("The fact is no longer believed; tell it anew to believe it again.", current=None)
    return FactEnded(
        "Another version of the fact is believed by now, the one in `current`; read that, and decide anew.",
        current=str(current),
    )


def no_fact() -> NoFact:
    """What is said where there is none."""
    return NoFact("There is no such fact; its id is as a write, a list or a search gave it.")
