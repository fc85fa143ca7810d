"""An agent's knowledge: facts, and what was believed when."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from msgspec import UNSET, Struct, UnsetType

from agentmemory.calls import Calls, given
from agentmemory.encoding import timestamp
from agentmemory.models import Fact, FoundFact

Strategy = Literal["hybrid", "semantic", "keyword"]


class FactPage(Struct, kw_only=True):
    """Facts, newest belief first; `cursor` continues it and is None at the end."""

    facts: list[Fact]
    cursor: str | None = None


class FoundFacts(Struct, kw_only=True):
    """The best matches, best first. `not_yet_embedded` facts have no vector yet: only their words are searched.

    `degraded` holds `semantic` where none could be found by meaning.
    """

    hits: list[FoundFact]
    not_yet_embedded: int = 0
    degraded: list[str] = []


class _Erased(Struct):
    erased: int


class Knowledge:
    """Tells an agent's memory facts, and searches them. Made by `Agent.knowledge`.

    Every call raises the errors of `agentmemory.errors`.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def put(
        self,
        topic: str,
        content: str,
        *,
        key: str | None = None,
        confidence: float = 1.0,
        sources: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Fact:
        """Believe a fact from now on. With a `key` it takes the place of what is believed under it.

        What is believed already, word for word, is answered and changes nothing. A write that is repeated with its
        `idempotency_key` answers the version that the first one made.
        """
        fact = {"topic": topic, "content": content, "key": key, "metadata": metadata}
        body = given(fact) | {"confidence": confidence, "sources": list(sources)}
        answer = await self._calls.send("POST", "/knowledge", body, key=idempotency_key or uuid.uuid4().hex)
        return answer.decode(Fact)

    async def get(self, id: str) -> Fact:
        """One version of a fact, believed or not.

        Raises:
            NoFact: there is none of that id.
        """
        return (await self._calls.get(_path(id))).decode(Fact)

    async def change(
        self,
        id: str,
        *,
        topic: str | None = None,
        content: str | None = None,
        confidence: float | None = None,
        sources: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | UnsetType | None = UNSET,
        idempotency_key: str | None = None,
    ) -> Fact:
        """Believe another version of a fact, with an id of its own; the one before stays in its history.

        `metadata` is a JSON Merge Patch (RFC 7396); None removes all of it.

        Raises:
            NoFact: there is none of that id.
            NoLongerBelieved: this version is history; `current` names the one that is believed, if any.
        """
        change = given({"topic": topic, "content": content, "confidence": confidence})
        if sources is not None:
            change["sources"] = list(sources)
        if metadata is not UNSET:
            change["metadata"] = metadata
        answer = await self._calls.send("PATCH", _path(id), change, key=idempotency_key or uuid.uuid4().hex)
        return answer.decode(Fact)

    async def end(self, id: str) -> Fact:
        """Believe it no longer; its history stays. Harmless when it has ended.

        Raises:
            NoFact: there is none of that id.
            NoLongerBelieved: another version of it is believed by now.
        """
        return (await self._calls.send("DELETE", _path(id))).decode(Fact)

    async def erase(self, id: str) -> int:
        """Remove a fact with its history, and all that was ever believed under its key; how many versions.

        Raises:
            NoFact: there is none of that id.
        """
        return (await self._calls.send("DELETE", _path(id) + "?erase=true")).decode(_Erased).erased

    async def page(
        self,
        *,
        key: str | None = None,
        topics: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        min_confidence: float | None = None,
        at: datetime | str | None = None,
        history: bool = False,
        versions_of: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> FactPage:
        """One page of what is believed, newest belief first; `cursor`, from the page before, continues it.

        `at` asks for what was believed then, `history` for what is no longer believed as well, `versions_of` for
        every version of the fact that has one of this id.
        """
        query = {
            "key": key,
            "topic": list(topics) or None,
            "metadata": None if metadata is None else json.dumps(metadata),
            "min_confidence": min_confidence,
            "at": at and timestamp(at),
            "history": "true" if history else None,
            "versions_of": versions_of,
            "limit": limit,
            "cursor": cursor,
        }
        return (await self._calls.get("/knowledge", query)).decode(FactPage)

    async def list(self, *, page_size: int = 100, **filters: Any) -> AsyncIterator[Fact]:
        """All that `page` would list with these filters, page by page."""
        cursor: str | None = None
        while True:
            page = await self.page(**filters, limit=page_size, cursor=cursor)
            for fact in page.facts:
                yield fact
            cursor = page.cursor
            if cursor is None:
                return

    async def search(
        self,
        query: str,
        *,
        k: int = 5,
        strategy: Strategy | None = None,
        key: str | None = None,
        topics: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        min_confidence: float | None = None,
        at: datetime | str | None = None,
        min_score: float | None = None,
    ) -> FoundFacts:
        """The `k` facts that match best, by meaning and by words, among what the filters let through.

        Raises:
            RecallUnavailable: `semantic` was asked for, and no embedding can be made of the query.
        """
        filters = {
            "key": key,
            "topics": list(topics) or None,
            "metadata": metadata,
            "min_confidence": min_confidence,
            "at": at and timestamp(at),
        }
        question = {
            "query": query,
            "k": k,
            "strategy": strategy,
            "filter": given(filters) or None,
            "min_score": min_score,
        }
        return (await self._calls.send("POST", "/knowledge/search", given(question))).decode(FoundFacts)


def _path(id: str) -> str:
    return f"/knowledge/{quote(id, safe='')}"
