"""The matrices of the agents that are asked for, kept within a bound; asking again costs what is new since."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
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
    settled: dict[UUID, Hashable] = field(default_factory=dict)
    """What is in the matrix, or will never be, each as it was then."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def keep(self, wanted: Mapping[UUID, Hashable]) -> None:
        """Let go of all else."""
        self.settled = {one: version for one, version in self.settled.items() if wanted.get(one, self) == version}
        self.matrix.keep(self.settled)


class Matrices:
    """Those of events, or of facts."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._agents: OrderedDict[str, _Held] = OrderedDict()

    async def of(
        self, agent: str, wanted: Mapping[UUID, Hashable], text_of: Callable[[UUID], str]
    ) -> tuple[Matrix, int]:
        """The vectors of at least these ids, and how many of them wait for theirs.

        The value of an id tells one text under it from another. The matrix is for use before the next await. Raises
        StoreUnavailable.
        """
        held = self._find(agent)
        async with held.lock:
            settled = held.settled
            again = any(settled.get(one, version) != version for one, version in wanted.items())
            if again or len(settled) > 2 * len(wanted) + _SLACK:
                held.keep(wanted)
            missing = {one: text_of(one) for one in wanted if one not in held.settled}
            waiting = await self._add(agent, held, missing, wanted) if missing else 0
            self._make_room()
            return held.matrix, waiting

    async def _add(self, agent: str, held: _Held, texts: dict[UUID, str], versions: Mapping[UUID, Hashable]) -> int:
        """Take what there is by now; how many wait."""
        wanted = {one: text for one, text in texts.items() if text}
        found = await self._store.fetch(agent, wanted)
        for identity, vectors in found.items():
            held.matrix.add(identity, vectors)
        missing = {one: text for one, text in wanted.items() if one not in found}
        given_up = await self._store.given_up(agent, missing) if missing else set()
        waiting = missing.keys() - given_up
        held.settled |= {one: versions[one] for one in texts if one not in waiting}
        return len(waiting)

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
