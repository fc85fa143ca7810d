"""Knowledge: facts with their history, and the search in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from agentmemory_engine.answers import Fact, FactPage, FoundFacts
from agentmemory_engine.embedding import Vector
from agentmemory_engine.fact_search import FactQuery, FactSearching
from agentmemory_engine.facts import Belief, FactChange, FactFilter, NewFact, fingerprint
from agentmemory_engine.keys import check_agent
from agentmemory_engine.knowledge import KnowledgeQuery, Place, identity_of, no_fact, page_of
from agentmemory_engine.redis_only.beliefs import Beliefs, listed
from agentmemory_engine.redis_only.matrices import Matrices
from agentmemory_engine.redis_only.records import Amendment, RecordStore
from agentmemory_engine.semantic import QueryVectors

T = TypeVar("T")


class FactSearch(FactSearching):
    """Searches the facts in Redis."""

    def __init__(self, records: RecordStore, queries: QueryVectors, matrices: Matrices) -> None:
        super().__init__(queries)
        self._records = records
        self._matrices = matrices

    async def _scan(self, agent: str, wanted: FactFilter, vector: Vector | None) -> Sequence[Mapping[str, Any]]:
        wanted.check()
        _, _, _, _, at = wanted.parameters()
        records = await self._records.read(agent)
        rows = [row for row in records.facts.values() if row.is_believed(at)]
        distances: dict[UUID, float] = {}
        if vector is not None and rows:
            facts = records.facts
            matrix, _ = await self._matrices.of(agent, dict.fromkeys(facts), lambda one: facts[one].text)
            distances = matrix.nearest(vector)
        return [
            {
                "id": row.id,
                "believed_from": row.believed_from,
                "passes": wanted.matches(row.fact),
                "distance": distances.get(row.id),
                "filling": False,
            }
            for row in rows
        ]

    async def _facts(self, agent: str, ids: list[UUID]) -> list[Fact]:
        facts = (await self._records.read(agent)).facts
        return [facts[identity].fact for identity in ids if identity in facts]


class Knowledge:
    """The facts of one memory. Every call raises InvalidAgentId, InvalidInput, ShardClosed and StoreUnavailable.

    A write waits for no embedding, and raises JournalFull and WrongEvictionPolicy.
    """

    def __init__(self, records: RecordStore, search: FactSearch, *, embed: bool) -> None:
        self._records = records
        self._search = search
        self._embed = embed

    async def put(self, agent: str, new: NewFact, *, key: str | None = None) -> tuple[Fact, bool]:
        """The fact, and whether it is a new version. What its key says already, word for word, changes nothing.

        `key` makes a repetition harmless: it answers the version that the first request made. Raises KeyReused.
        """
        belief, identity, body = Belief.of(new), identity_of(agent, key), fingerprint(new)
        return await self._edit(agent, lambda beliefs: beliefs.put(identity, new, belief, body))

    async def change(
        self, agent: str, identity: UUID, change: FactChange, *, key: str | None = None
    ) -> tuple[Fact, bool]:
        """The version after the change, and whether it is a new one. A repetition with the same `key` answers it again.

        Raises NoFact, FactEnded, KeyReused.
        """
        following, body = identity_of(agent, key), fingerprint(change, identity)
        return await self._edit(agent, lambda beliefs: beliefs.change(following, identity, change, body))

    async def end(self, agent: str, identity: UUID) -> Fact:
        """Believe it no longer. Ending it twice is harmless.

        Raises NoFact, and FactEnded where another version of it is believed by now.
        """
        return await self._edit(agent, lambda beliefs: beliefs.end(identity))

    async def erase(self, agent: str, identity: UUID) -> int:
        """Remove every version of a fact, and all that was ever believed under its key; how many. Raises NoFact."""
        return await self._edit(agent, lambda beliefs: beliefs.erase(identity))

    async def _edit(self, agent: str, edit: Callable[[Beliefs], T]) -> T:
        async with self._records.alone(agent) as editing:
            while True:
                records = await editing.read()
                beliefs = Beliefs(records.facts, records.now)
                answer = edit(beliefs)
                if not beliefs.changed and not beliefs.gone:
                    return answer
                waiting = beliefs.added if self._embed else 0
                if await editing.make(records, Amendment(facts=beliefs.changed, gone=beliefs.gone, waiting=waiting)):
                    return answer

    async def read(self, agent: str, identity: UUID) -> Fact:
        """One version of a fact, believed or not. Raises NoFact."""
        row = (await self._records.read(check_agent(agent))).facts.get(identity)
        if row is None:
            raise no_fact()
        return row.fact

    async def page(self, agent: str, query: KnowledgeQuery) -> FactPage:
        """A page of facts. Later pages list what was believed when the first was read, whatever is written since."""
        records = await self._records.read(check_agent(agent))

        async def some(wanted: FactFilter, every: bool, after: Place | None) -> tuple[list[Fact], datetime | None]:
            found, as_of = listed(records.facts, wanted, every=every, versions_of=query.versions_of)
            if after is not None:
                place = after.believed_from, after.id
                found = [fact for fact in found if (fact.believed_from, fact.id) < place]
            return found[: query.limit + 1], as_of

        return await page_of(agent, query, some)

    async def search(self, agent: str, query: FactQuery) -> FoundFacts:
        """The facts that match best, as an exhaustive scan ranks them. Raises RecallUnavailable."""
        return await self._search.search(check_agent(agent), query)
