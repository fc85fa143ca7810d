"""A real Redis Cluster: three masters, each with a replica, that can be killed and given other slots."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agentmemory.local.valkey import ADMIN, Valkey, ValkeySettings
from agentmemory_engine.redis import Credentials
from agentmemory_engine.settings import Settings
from agentmemory_engine.slots import SLOTS, slot_of

MASTERS = 3


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as open_sockets:
        found = [open_sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in found]


class Member(Valkey):
    """One node, and what its administrator asks it; without a `bus` port, a server of no cluster."""

    def __init__(self, directory: Path, port: int, bus: int | None, password: str, *, patience: int = 0) -> None:
        super().__init__(directory, ValkeySettings(port=port))
        self._bus = bus
        self._patience = patience
        self.address = f"127.0.0.1:{port}"
        directory.mkdir()
        (directory / "valkey.password").write_text(password)
        (directory / "valkey.password").chmod(0o600)
        self._known = password

    def client(self) -> Any:
        """The administrator's, for the loop that runs now; `async with` closes it."""
        return redis.asyncio.Redis(
            port=self.port or 0, username=ADMIN, password=self._known, decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip

    def _options(self, data: Path, users: Path, pid_file: Path) -> list[str]:
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-port": str(self._bus),
            "cluster-node-timeout": str(self._patience),
            "cluster-replica-validity-factor": "0",
            "cluster-require-full-coverage": "no",
            "cluster-allow-replica-migration": "no",
            "repl-diskless-sync-delay": "0",
            "masteruser": ADMIN,
            "masterauth": self._password,
        }
        if self._bus is None:
            return super()._options(data, users, pid_file)
        more = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [*super()._options(data, users, pid_file), *more]

    async def ask(self, *command: str | int) -> Any:
        """A command, as it is answered on the wire."""
        async with self.client() as client:
            return await client.execute_command(*command)

    async def state(self) -> dict[str, str]:
        """CLUSTER INFO."""
        return dict(line.split(":", 1) for line in (await self.ask("CLUSTER", "INFO")).splitlines())

    async def replication(self) -> dict[str, Any]:
        """INFO replication."""
        async with self.client() as client:
            found: dict[str, Any] = await client.info("replication")
            return found

    async def served(self, slot: int) -> int:
        """The port of the node that serves this slot, as this node sees it; 0 where none does."""
        ranges = await self.ask("CLUSTER", "SLOTS")
        return next((int(master[1]) for first, last, master, *_ in ranges if first <= slot <= last), 0)

    async def node_id(self) -> str:
        """The id of the node."""
        return str(await self.ask("CLUSTER", "MYID"))


class RedisCluster:
    """The cluster; `async with` starts and stops it. After `patience` milliseconds a silent master is replaced."""

    def __init__(self, directory: Path, *, patience: int) -> None:
        password = secrets.token_hex(8)
        ports = free_ports(4 * MASTERS)
        self.members = [
            Member(directory / str(number), port, bus, password, patience=patience)
            for number, (port, bus) in enumerate(zip(ports[::2], ports[1::2], strict=True))
        ]

    async def __aenter__(self) -> RedisCluster:
        await asyncio.gather(*(member.start() for member in self.members))
        await self._form()
        return self

    async def __aexit__(self, *_: object) -> None:
        # In good order, each would wait for its replica first.
        await asyncio.gather(*(member.kill() for member in self.members if member.running))

    @property
    def url(self) -> str:
        """The address of one node."""
        return f"redis://{self.members[0].address}"

    async def _form(self) -> None:
        first, *others = self.members
        bounds = [SLOTS * number // MASTERS for number in range(MASTERS + 1)]
        for number, member in enumerate(self.members):
            await member.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < MASTERS:
                await member.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for member in others:
            await member.ask("CLUSTER", "MEET", "127.0.0.1", member.port or 0, member._bus or 0)
        for member in others:
            await first.ask("CLUSTER", "MEET", "127.0.0.1", member.port or 0, member._bus or 0)
        await until("all nodes know each other", self._acquainted)
        for master, replica in zip(self.members, self.members[MASTERS:], strict=False):
            await replica.ask("CLUSTER", "REPLICATE", await master.node_id())
        await self.heal()

    async def _acquainted(self) -> bool:
        states = [await member.state() for member in self.members]
        return all(int(state["cluster_known_nodes"]) == len(self.members) for state in states)

    async def heal(self) -> None:
        """Start what was killed, and wait until every master has its replica again and all see the same."""
        await asyncio.gather(*(member.start() for member in self.members))
        await until("the cluster is whole", self._whole)

    async def _whole(self) -> bool:
        infos = [await member.replication() for member in self.members]
        masters = [info for info in infos if info["role"] == "master"]
        views = {str(sorted(map(str, await member.ask("CLUSTER", "SLOTS")))) for member in self.members}
        return (
            len(masters) == MASTERS
            and all(info["connected_slaves"] == 1 for info in masters)
            and all(info["master_link_status"] == "up" for info in infos if info["role"] != "master")
            and all([(await member.state())["cluster_state"] == "ok" for member in self.members])
            and len(views) == 1
        )

    async def masters(self) -> list[Member]:
        """Those that are masters now."""
        return [one for one in self.members if one.running and (await one.replication())["role"] == "master"]

    async def master_of(self, key: str) -> Member:
        """Who serves this key, by its own word."""
        found = [one for one in await self.masters() if await one.served(slot_of(key)) == one.port]
        assert len(found) == 1, f"{len(found)} nodes serve slot {slot_of(key)}"
        return found[0]

    async def replica_of(self, master: Member) -> Member:
        """Its replica."""
        for member in self.members:
            found = await member.replication()
            if found["role"] != "master" and found["master_port"] == master.port:
                return member
        raise AssertionError(f"{master.address} has no replica")

    async def move(self, slot: int, source: Member, target: Member) -> int:
        """Give a slot to another master, key by key, as `redis-cli --cluster reshard` does; answer how many keys."""
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await source.node_id())
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await target.node_id())
        moved = 0
        while keys := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            login = ("AUTH2", ADMIN, target.admin_password)
            await source.ask("MIGRATE", "127.0.0.1", target.port or 0, "", 0, 5000, *login, "KEYS", *keys)
            moved += len(keys)
        for member in (target, source):
            await member.ask("CLUSTER", "SETSLOT", slot, "NODE", await target.node_id())
        return moved


async def until(what: str, holds: Callable[[], Any], *, seconds: float = 30.0) -> None:
    """Wait for a condition of servers. Raises AssertionError when it does not come about."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if await holds():
                return
        except (RedisError, OSError):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        await asyncio.sleep(0.02)


async def admit(members: Iterable[Member], settings: Settings, login: Credentials) -> None:
    """What an administrator does: the ACL user on every node, replicas included."""
    rules = ["reset", "on", f">{login.password}", *settings.keys.acl()[1:]]
    for member in members:
        await member.ask("ACL", "SETUSER", login.username, *rules)
        await member.ask("ACL", "SAVE")
