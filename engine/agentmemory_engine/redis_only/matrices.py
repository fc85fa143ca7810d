"""The matrices of the agents that are asked for, kept within a bound; asking again costs what is new since."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from agentmemory_engine.redis_only.vectors import VectorStore

if TYPE_CHECKING:
    from agentmemory_engine.redis_only.matrix import Matrix

_HELD = 48 << 20
"""Bytes of all matrices together."""
_SLACK = 64


@dataclass
class _Held:
    matrix: Matrix
    settled: set[UUID] = field(default_factory=set)
    """What is in the matrix, or will never be."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Matrices:
    """Those of events, or of facts."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._agents: OrderedDict[str, _Held] = OrderedDict()

    async def of(
        self, agent: str, wanted: Collection[UUID], is_embeddable: Callable[[UUID], bool] = lambda _: True
    ) -> tuple[Matrix, int]:
        """The vectors of at least these ids, and how many of them wait for theirs.

        The matrix is for use before the next await. Raises StoreUnavailable.
        """
        held = self._find(agent)
        async with held.lock:
            missing = [identity for identity in wanted if identity not in held.settled]
            held.settled.update(identity for identity in missing if not is_embeddable(identity))
            missing = [identity for identity in missing if identity not in held.settled]
            if missing:
                missing = await self._add(agent, held, missing)
            if len(held.settled) > 2 * len(wanted) + _SLACK:
                held.settled &= set(wanted)
                held.matrix.keep(held.settled)
            self._make_room()
            return held.matrix, len(missing)

    async def _add(self, agent: str, held: _Held, missing: list[UUID]) -> list[UUID]:
        found = await self._store.fetch(agent, missing)
        for identity, vectors in found.items():
            held.matrix.add(identity, vectors)
        held.settled |= found.keys()
        missing = [identity for identity in missing if identity not in found]
        given_up = await self._store.given_up(agent, missing) if missing else set()
        held.settled |= given_up
        return [identity for identity in missing if identity not in given_up]

    def _find(self, agent: str) -> _Held:
        # What runs the numbers is loaded when somebody asks: many a sidecar is never asked.
        from agentmemory_engine.redis_only.matrix import Matrix

        held = self._agents.get(agent)
        if held is None:
            held = self._agents[agent] = _Held(Matrix(self._store.dimensions))
        self._agents.move_to_end(agent)
        return held

    def _make_room(self) -> None:
        """Let go of those that were not asked for the longest; the last one stays."""
        while len(self._agents) > 1 and sum(held.matrix.size for held in self._agents.values()) > _HELD:
            self._agents.popitem(last=False)
