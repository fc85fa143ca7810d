"""Waking up: an agent's context from whatever can be asked, and its document brought back where that is wanted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from msgspec import Raw

from agentmemory_engine.answers import ColdStart, DeadLetter, Document, FactHit, Hydration, Page, Recalled, Receipt
from agentmemory_engine.errors import (
    DocumentExpired,
    NoDocument,
    StoreUnavailable,
    Unavailable,
    UnreadableDocument,
    VersionConflict,
)
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.hydrate import HydrateQuery, assemble
from agentmemory_engine.journal import ABSENT
from agentmemory_engine.parts import Parts
from agentmemory_engine.recall import RecallQuery
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import DocumentChange, Turn


class Record(Protocol):
    """Records a turn, as Memory.record does."""

    async def __call__(self, agent: str, turn: Turn, *, if_match: str | None = None) -> Receipt: ...


class Waking:
    """Assembles contexts; a part that cannot be asked is left out, and named."""

    def __init__(self, parts: Parts, settings: Settings, record: Record) -> None:
        self._parts = parts
        self._settings = settings
        self._record = record

    async def hydrate(self, agent: str, query: HydrateQuery) -> Hydration:
        """The context. Raises StoreUnavailable where there is nothing to wake up with."""
        degraded: list[str] = []
        quarantined: list[DeadLetter] = []
        (document, cold_start), recent, recalled, facts = await asyncio.gather(
            self._wake(agent, query, degraded, quarantined),
            self._recent_or_nothing(agent, degraded),
            self._recalled_or_nothing(agent, query, degraded),
            self._known_or_nothing(agent, query, degraded),
        )
        if {"working_memory", "recent"} <= set(degraded):
            raise StoreUnavailable("redis and postgres", "neither answers; there is nothing to wake up with.")
        if cold_start == "new-agent" and recent.events:
            cold_start = None
        context = assemble(document.body if document else None, recent.events, recalled.hits, facts, query.tokens)
        return Hydration(
            working_memory=context.document,
            version=document.version if document else None,
            recent=context.recent,
            recalled=context.recalled,
            knowledge=context.knowledge,
            text=context.text,
            tokens=context.tokens,
            cold_start=cold_start,
            quarantined=quarantined,
            left_out=context.left_out,
            degraded=degraded,
        )

    async def _wake(
        self, agent: str, query: HydrateQuery, degraded: list[str], quarantined: list[DeadLetter]
    ) -> tuple[Document | None, ColdStart | None]:
        cold_start: ColdStart
        try:
            return await self._parts.working.read(agent), None
        except NoDocument:
            return None, "new-agent"
        except DocumentExpired:
            cold_start = "expired"
        except UnreadableDocument:
            cold_start = "unreadable"
        except Unavailable:
            degraded.append("working_memory")
            return None, None
        try:
            if cold_start == "unreadable":
                quarantined += await self._parts.quarantine.take(agent)
            return await self._restore(agent) if query.restore else None, cold_start
        except Unavailable:
            degraded.append("working_memory")
            return None, cold_start

    async def _restore(self, agent: str) -> Document | None:
        """Write the last snapshot back as the document, unless someone has begun a new one."""
        last = await self._parts.working.last_snapshot(agent)
        if last is None:
            return None
        change = DocumentChange(set=Raw(last.body))
        try:
            receipt = await self._record(agent, Turn(working_memory=change), if_match=ABSENT)
        except VersionConflict:
            return await self._parts.working.current(agent)
        return replace(last, version=receipt.position)

    async def _recent_or_nothing(self, agent: str, degraded: list[str]) -> Page:
        try:
            page = await self._parts.events.recent(agent, self._settings.recent_messages)
        except Unavailable:
            degraded.append("recent")
            return Page([], None)
        degraded += [part for part in page.degraded if part not in degraded]
        return page

    async def _recalled_or_nothing(self, agent: str, query: HydrateQuery, degraded: list[str]) -> Recalled:
        if query.query is None:
            return Recalled([])
        try:
            found = await self._parts.recall.search(agent, RecallQuery(query=query.query, k=query.k))
            degraded += [part for part in found.degraded if part not in degraded]
            return found
        except Unavailable:
            degraded.append("recalled")
            return Recalled([])

    async def _known_or_nothing(self, agent: str, query: HydrateQuery, degraded: list[str]) -> list[FactHit]:
        if query.query is None or not query.facts:
            return []
        try:
            found = await self._parts.knowledge.search(agent, FactQuery(query=query.query, k=query.facts))
            degraded += [part for part in found.degraded if part not in degraded]
            return found.hits
        except Unavailable:
            degraded.append("knowledge")
            return []
