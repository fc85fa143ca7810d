"""A Redis Cluster: one connection to each node, and which of them serves a key at the moment.

A node that does not serve a key any more says so, and nothing is applied; the cluster is then asked again who does.
Whether a shard may be used there is for the shard's mark to say, which names the run of the node that it was opened on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from agentmemory_engine.connection import Connection, ServerInfo
from agentmemory_engine.errors import ForeignStore, MemoryFault, StoreUnavailable
from agentmemory_engine.node import CLOSED, Node, RedisAddress, value_of
from agentmemory_engine.slots import SlotMap, parse_view, slot_of

logger = logging.getLogger(__name__)

Verify = Callable[[Connection], Any]


class Cluster:
    """The nodes of the cluster that the server `first` belongs to.

    `verify` is asked, on the node that serves `verify_key`, whether the cluster is ours, at each new connection.
    """

    def __init__(
        self, address: RedisAddress, first: Node, *, client_name: str, verify: Verify | None, verify_key: str
    ) -> None:
        self._address = address
        self._first = first
        self._client_name = client_name
        self._verify = verify
        self._verify_key = verify_key
        self._ours = False
        self._nodes: dict[str, Node] = {}
        self._map = SlotMap()
        self._looking: asyncio.Task[None] | None = None
        self._trusting: asyncio.Task[None] | None = None
        self._closed = False
        self.stale = True
        """Whether to ask who serves what before anything else is sent."""
        self.dissolved = False
        """Whether the first server is of no cluster any more."""

    async def connection(self, key: str) -> Connection:
        """The live connection to the node that serves this key. Raises StoreUnavailable or a Refused."""
        connection = await self._serving(key)
        if not connection.trusted:
            # One question for all who wait, as it may go to Postgres.
            if self._trusting is None:
                self._trusting = asyncio.create_task(self._trust())
                self._trusting.add_done_callback(self._trusted)
            await asyncio.shield(self._trusting)
            connection.trusted = True
        return connection

    def _trusted(self, trusting: asyncio.Task[None]) -> None:
        self._trusting = None
        if not trusting.cancelled():
            trusting.exception()  # told to those who wait, where any still do

    async def _serving(self, key: str) -> Connection:
        if self.stale or self._closed:
            await self._look()
        place = self._map.masters[slot_of(key)]
        if place is None:
            self.stale = True
            raise StoreUnavailable("redis", "no node of the cluster serves the slot of this shard.")
        try:
            connection = await self._node(place).connection()
        except StoreUnavailable:
            self.stale = True
            raise
        if connection.info is None or connection.info.role != "master":
            connection.abort("it was a replica when it was asked")
            self.stale = True
            raise StoreUnavailable("redis", f"{place} does not serve as a master yet, or no longer; try again.")
        return connection

    async def _trust(self) -> None:
        """See whose memory the cluster holds. One that was found to be ours is, while the record cannot be read."""
        if self._verify is None:
            return
        try:
            await self._verify(await self._serving(self._verify_key))
        except StoreUnavailable:
            if not self._ours:
                raise
        except ForeignStore:
            self._ours = False
            self.drop()
            raise
        self._ours = True

    def _node(self, place: str) -> Node:
        if place not in self._nodes:
            scheme = "rediss" if self._address.url.startswith("rediss:") else "redis"
            address = replace(self._address, url=f"{scheme}://{place}")
            self._nodes[place] = Node(address, _admit, client_name=self._client_name, place=place)
        return self._nodes[place]

    async def _look(self) -> None:
        """Learn who serves what; one question for all who wait. Raises StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable("redis", CLOSED)
        if self._looking is None:
            self._looking = asyncio.create_task(self._ask_around())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if looking.cancelled() or looking.exception() is not None:
            self.stale = True

    async def _ask_around(self) -> None:
        # Before the questions: what is learnt while they are under way makes the answers old.
        self.stale = False
        live = [node for node in self._nodes.values() if node.live]
        answers = await _ask(live)
        if not any(isinstance(answer, SlotMap) and answer.healthy for answer in answers):
            others = [node for node in self._nodes.values() if node not in live]
            answers += await _ask([*others, self._first])
            self._let_go_of_first()
        views = [answer for answer in answers if isinstance(answer, SlotMap)]
        if not views:
            said = next((str(answer) for answer in answers), "none is known")
            raise StoreUnavailable("redis", f"no node of the cluster says which of them serves what ({said})")
        self._adopt(max(views, key=lambda view: view.rank))

    def _let_go_of_first(self) -> None:
        """It is one of the nodes, which have connections of their own."""
        connection = self._first.live
        if connection is not None and connection.info is not None:
            self.dissolved = not connection.info.cluster
            self._first.drop()

    def _adopt(self, view: SlotMap) -> None:
        if view.masters != self._map.masters:
            serving = sorted({place for place in view.masters if place})
            logger.info("redis: a cluster, served by %s", ", ".join(serving) or "no node")
        self._map = view
        for place in self._nodes.keys() - view.nodes:
            self._nodes.pop(place).drop()
        masters = set(view.masters)
        for place, node in self._nodes.items():
            # One that comes back as a master later has another history by then.
            if place not in masters and node.live is not None:
                node.drop()

    @property
    def infos(self) -> list[ServerInfo]:
        """What is known of the masters there are connections to."""
        live = (node.live for node in self._masters())
        return [connection.info for connection in live if connection is not None and connection.info is not None]

    def _masters(self) -> list[Node]:
        return [self._node(place) for place in sorted({place for place in self._map.masters if place})]

    async def refresh(self) -> list[ServerInfo | StoreUnavailable]:
        """Ask again who serves what, and every master about itself: what it says, or why it does not.

        Raises StoreUnavailable or a Refused when nobody can be asked, or the cluster belongs to another memory.
        """
        await self._look()
        found: list[ServerInfo | StoreUnavailable] = []
        for answer in await asyncio.gather(*(node.refresh() for node in self._masters()), return_exceptions=True):
            if isinstance(answer, StoreUnavailable):
                self.stale = True
                found.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer.info is not None:
                found.append(answer.info)
        await self._trust()
        return found

    async def renew(self) -> bool:
        """See Redis.renew; of every node."""
        answers = await asyncio.gather(*(node.renew() for node in self._nodes.values()), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return any(answers)

    def drop(self) -> None:
        """Make the next command connect anew."""
        for node in self._nodes.values():
            node.drop()

    async def close(self) -> None:
        """Let go of all connections; whoever waits for one gets StoreUnavailable."""
        self._closed = True
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        under_way = {task for task in (self._looking, self._trusting) if task is not None}
        if under_way:
            await asyncio.wait(under_way)


async def _admit(connection: Connection) -> None:
    """Any node may say who serves what; what it serves itself is judged where it is used."""


async def _ask(nodes: Iterable[Node]) -> list[SlotMap | MemoryFault]:
    """How the nodes see the cluster, or why one does not say."""
    found: list[SlotMap | MemoryFault] = []
    for answer in await asyncio.gather(*(_ask_one(node) for node in nodes), return_exceptions=True):
        if not isinstance(answer, SlotMap | MemoryFault):
            raise answer
        found.append(answer)
    return found


async def _ask_one(node: Node) -> SlotMap:
    connection = await node.connection()
    info, slots = await asyncio.gather(connection.send("CLUSTER", "INFO"), connection.send("CLUSTER", "SLOTS"))
    return parse_view(value_of(info).decode(), value_of(slots), node.host)
