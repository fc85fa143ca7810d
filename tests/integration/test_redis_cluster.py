"""A Redis Cluster under a memory: slots move, masters die, and what was acknowledged is there or known as lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentmemory.local.stores import LocalStores
from agentmemory.local.valkey import ADMIN
from agentmemory_engine import administration
from agentmemory_engine.answers import Receipt
from agentmemory_engine.channels import NewMessage
from agentmemory_engine.embedding.none import NullEmbedder
from agentmemory_engine.errors import ForeignStore, StoreUnavailable, Unavailable
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.preflight import examine_redis, problems_of
from agentmemory_engine.redis import Credentials, Redis, RedisAddress
from agentmemory_engine.settings import Settings
from agentmemory_engine.slots import slot_of
from agentmemory_engine.turns import parse_turn
from agentmemory_operator import moves
from agentmemory_sidecar.credentials import CredentialFiles
from agentmemory_sidecar.prepare import Administrators
from agentmemory_sidecar.prepare import prepare as run_prepare
from support.backups import flush
from support.memories import MakeMemory, postgres_dsn, prepare
from support.redis_cluster import Member, RedisCluster, admit, until
from support.sidecars import Running, make_config


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisCluster]:
    async with RedisCluster(tmp_path_factory.mktemp("cluster"), patience=1000) as cluster:
        yield cluster


@pytest.fixture
async def cluster(servers: RedisCluster) -> AsyncIterator[RedisCluster]:
    """The cluster, whole before each test."""
    await servers.heal()
    yield servers


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, shards=8)


@pytest.fixture
async def login(stores: LocalStores, settings: Settings, cluster: RedisCluster) -> Credentials:
    login = await prepare(stores, settings)
    await admit(cluster.members, settings, login)
    return login


@pytest.fixture
def make_memory(stores: LocalStores, settings: Settings, login: Credentials, cluster: RedisCluster) -> MakeMemory:
    def make(*, work: bool = True, **changes: Any) -> Memory:
        changed = replace(settings, **changes)
        store = Redis(RedisAddress(url=cluster.url, credentials=lambda: login))
        postgres = Postgres(postgres_dsn(stores), lambda: login, schema=changed.keys.schema)
        return Memory(changed, store, postgres, NullEmbedder(), work=work)

    return make


@dataclass
class Writer:
    """Says one thing after the other, each with its key until it is acknowledged."""

    memory: Memory
    agent: str
    acknowledged: list[tuple[str, Receipt]] = field(default_factory=list)
    stopping: bool = False

    async def say(self) -> None:
        """The next thing."""
        content = f"{self.agent}-{len(self.acknowledged)}"
        body = f'{{"events": [{{"content": "{content}"}}], "working_memory": {{"set": {{"last": "{content}"}}}}}}'
        while True:
            with contextlib.suppress(Unavailable):
                receipt = await self.memory.record(self.agent, parse_turn(body.encode()), key=content)
                self.acknowledged.append((content, receipt))
                return

    async def run(self) -> None:
        """Until it is told to stop; what it has begun is acknowledged then."""
        while not self.stopping:
            await self.say()

    def beyond(self, count: int) -> Callable[[], Any]:
        """Whether so many more were acknowledged, from now."""
        goal = len(self.acknowledged) + count

        async def reached() -> bool:
            return len(self.acknowledged) >= goal

        return reached

    async def judge(self) -> set[str]:
        """Everything acknowledged is there once, in order, or known as lost; answers what is lost."""
        found = [event.content async for event in _events(self.memory, self.agent)]
        states = {
            content: await self.memory.state(self.agent, receipt.position) for content, receipt in self.acknowledged
        }
        lost = {content for content, state in states.items() if state == "lost"}
        assert [one for one in found if one not in lost] == [c for c, _ in self.acknowledged if c not in lost]
        assert not lost & set(found)
        return lost


async def _events(memory: Memory, agent: str) -> AsyncIterator[Any]:
    cursor = None
    while True:
        page = await memory.timeline(agent, TimelineQuery(limit=100, cursor=cursor))
        for event in page.events:
            yield event
        cursor = page.cursor
        if cursor is None:
            return


@contextlib.asynccontextmanager
async def writing(memory: Memory, agents: list[str]) -> AsyncIterator[list[Writer]]:
    """One writer for each agent, which all have been acknowledged a few times."""
    writers = [Writer(memory, agent) for agent in agents]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    try:
        await all_beyond(writers, 5)
        yield writers
    finally:
        for writer in writers:
            writer.stopping = True
        await asyncio.gather(*tasks)


async def all_beyond(writers: list[Writer], count: int) -> None:
    goals = [writer.beyond(count) for writer in writers]
    for goal in goals:
        await until(f"{count} more turns are acknowledged", goal)


def agents_of(settings: Settings) -> list[str]:
    """One agent in each shard."""
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(settings.shard_of(f"a{number}"), f"a{number}")
    return [found[shard] for shard in range(settings.shards)]


async def master_of(cluster: RedisCluster, settings: Settings, agent: str) -> Member:
    return await cluster.master_of(settings.keys.state(settings.shard_of(agent)))


async def test_shards_stand_on_several_nodes_and_their_journals_are_emptied(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    async with make_memory() as memory:
        agents = agents_of(settings)
        async with writing(memory, agents) as writers:
            pass
        await flush(memory)
        assert [await writer.judge() for writer in writers] == [set()] * len(agents)
        assert (await memory.status()).persistence == "append-only file"
        places = {(await master_of(cluster, settings, agent)).port for agent in agents}
        assert len(places) > 1


async def test_a_slot_that_moves_under_its_writers_loses_and_doubles_nothing(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    agents = agents_of(settings)
    slot = slot_of(settings.keys.state(settings.shard_of(agents[0])))
    source = await master_of(cluster, settings, agents[0])
    target = next(one for one in await cluster.masters() if one is not source)
    async with make_memory() as memory, make_memory(work=False) as other:
        # Who only writes is told of the move by nothing but the answers of the nodes.
        async with writing(other, agents) as writers:
            assert await cluster.move(slot, source, target) > 3
            await all_beyond(writers, 10)
            assert await cluster.move(slot, target, source) > 3
            await all_beyond(writers, 10)
        await flush(memory)
        assert [await writer.judge() for writer in writers] == [set()] * len(agents)
        openings = {receipt.position.entry.opening for _, receipt in writers[0].acknowledged}
        assert len(openings) >= 3


async def test_a_master_that_dies_under_its_writers_is_followed_by_its_replica(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    agents = agents_of(settings)
    async with make_memory() as memory:
        async with writing(memory, agents) as writers:
            await (await master_of(cluster, settings, agents[0])).kill()
            await all_beyond(writers, 10)
        await flush(memory)
        for writer in writers:
            await writer.judge()
        openings = {receipt.position.entry.opening for _, receipt in writers[0].acknowledged}
        assert len(openings) >= 2


async def test_what_a_promoted_replica_never_got_is_reported_as_lost(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    agent = agents_of(settings)[0]
    async with make_memory(work=False, max_delay=600.0) as memory:
        await flush(memory)
        writer = Writer(memory, agent)
        await writer.say()
        master = await master_of(cluster, settings, agent)
        replica = await cluster.replica_of(master)
        async with master.client() as client:
            await until("the replica has it", lambda: client.wait(1, 1000))
        await cut_off(replica)
        await writer.say()
        await writer.say()
        await master.kill()
        await replica.ask("CONFIG", "SET", "masterauth", replica.admin_password)
        await until("the replica is promoted", lambda: is_master(replica))
        await flush_when_possible(memory)
        await writer.say()
        assert await writer.judge() == {f"{agent}-1", f"{agent}-2"}
        again = await memory.record(agent, parse_turn(b'{"events": [{"content": "anew"}]}'), key="anew")
        await flush(memory)
        assert await memory.state(agent, again.position) == "searchable"
        assert (await memory.read_document(agent)).body == f'{{"last": "{agent}-3"}}'.encode()


async def cut_off(replica: Member) -> None:
    """Have it get nothing from its master any more."""
    await replica.ask("CONFIG", "SET", "masterauth", "not-it")
    await replica.ask("CLIENT", "KILL", "TYPE", "master")
    await until("the link is down", lambda: is_cut_off(replica))


async def is_cut_off(replica: Member) -> bool:
    return bool((await replica.replication())["master_link_status"] == "down")


async def is_master(member: Member) -> bool:
    return bool((await member.replication())["role"] == "master")


async def flush_when_possible(memory: Memory) -> None:
    """Flush, however long the cluster takes to see who is master."""
    while True:
        with contextlib.suppress(Unavailable):
            return await flush(memory)


async def test_a_node_that_is_down_takes_only_its_own_shards_along(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    agents = agents_of(settings)
    down = await master_of(cluster, settings, agents[0])
    holder = await cluster.master_of(settings.keys.identity)
    if holder is not down:
        await cluster.move(slot_of(settings.keys.identity), holder, down)
    homes = {agent: await master_of(cluster, settings, agent) for agent in agents}
    async with make_memory() as memory:
        writers = {agent: Writer(memory, agent) for agent in agents}
        for writer in writers.values():
            await writer.say()
        await (await cluster.replica_of(down)).kill()
        await down.kill()
        with pytest.raises(StoreUnavailable):
            await memory.record(agents[0], parse_turn(b'{"events": [{"content": "x"}]}'))
        others = [agent for agent in agents if homes[agent] is not down]
        assert others
        for agent in others:
            await writers[agent].say()
            _, receipt = writers[agent].acknowledged[-1]
            await memory.wait([(agent, receipt.position)], "durable", 10)
        status = await memory.status()
        assert (status.lag, status.persistence, status.degraded) == (None, "Unknown", ["redis"])
        assert "redis" in await memory.check()
        await cluster.heal()
        await writers[agents[0]].say()
        await flush_when_possible(memory)
        assert await memory.check() == {}
        assert [await writer.judge() for writer in writers.values()] == [set()] * len(agents)


async def test_followers_of_a_channel_go_on_where_its_slot_goes(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    keys, shard = settings.keys, settings.shard_of("news")
    source = await cluster.master_of(keys.state(shard))
    target = next(one for one in await cluster.masters() if one is not source)
    async with make_memory() as memory:
        await flush(memory)
        first, _ = await memory.channels.publish("news", NewMessage(sender="a", payload=b"1"))  # type: ignore[arg-type]
        waiting = asyncio.create_task(memory.channels.read("news", after=str(first), wait=30.0))
        assert await cluster.move(slot_of(keys.state(shard)), source, target) > 1
        second = await publish_when_possible(memory)
        try:
            page = await waiting
        except Unavailable:
            page = await memory.channels.read("news", after=str(first), wait=30.0)
        assert [(one.payload, one.position) for one in page.messages] == [(b"2", second)]
        assert [info.channel for info in await memory.channels.page()] == ["news"]


async def publish_when_possible(memory: Memory) -> Any:
    while True:
        with contextlib.suppress(Unavailable):
            message = NewMessage(sender="a", payload=b"2")  # type: ignore[arg-type]
            return (await memory.channels.publish("news", message, key="2"))[0]


async def test_an_administrator_of_one_node_sees_to_all_of_them(cluster: RedisCluster, settings: Settings) -> None:
    keys, login = settings.keys, Credentials(settings.keys.schema + "_one", "of-one")
    async with cluster.members[0].client() as admin:
        await administration.set_login(admin, keys, login)
        for member in cluster.members:
            assert login.username in await member.ask("ACL", "USERS")
        users = await administration.find_users(admin)
        assert login.username in users.everywhere and len(users.runs) == len(cluster.members)
        await cluster.members[4].ask("ACL", "DELUSER", login.username)
        users = await administration.find_users(admin)
        assert login.username in users.anywhere - users.everywhere
        facts = await examine_redis(admin)
        assert (facts.nodes, facts.role, facts.persistence) == (len(cluster.members), "master", "appendfsync=everysec")
        assert problems_of(facts) == []
        await cluster.members[5].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        problem = problems_of(await examine_redis(admin))[0]
        assert problem.reason == "WrongEvictionPolicy" and "on each of the 6 nodes: CONFIG SET" in problem.message
        await cluster.members[5].ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert await administration.read_identity(admin, keys) is None
        assert await administration.write_identity(admin, keys, "one") == "one"
        assert await administration.write_identity(admin, keys, "another") == "one"
        assert await administration.read_identity(admin, keys) == "one"
        await administration.drop_login(admin, login.username)
        assert login.username not in (await administration.find_users(admin)).anywhere


async def test_a_cluster_is_the_same_one_by_whichever_node_it_is_asked(cluster: RedisCluster) -> None:
    async with cluster.members[0].client() as one, cluster.members[4].client() as other:
        assert await moves.servers_of(one) & await moves.servers_of(other)


async def test_erasing_takes_every_key_of_the_memory_from_every_node(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    async with make_memory() as memory:
        for agent in agents_of(settings):
            await Writer(memory, agent).say()
    async with cluster.members[1].client() as admin:
        assert await administration.read_identity(admin, settings.keys) is not None
        assert await administration.erase(admin, settings.keys) > len(agents_of(settings))
        assert await administration.erase(admin, settings.keys) == 0


async def test_logins_rotate_at_every_node_and_no_turn_fails_of_it(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings, login: Credentials
) -> None:
    held = [login]
    next_login = Credentials(login.username + "_2", "second")
    await admit(cluster.members, settings, next_login)
    store = Redis(RedisAddress(url=cluster.url, credentials=lambda: held[-1]))
    keys = [settings.keys.state(shard) for shard in range(settings.shards)]
    for key in keys:
        await store.execute("EXISTS", key)
    held.append(next_login)
    assert await store.renew()
    async with cluster.members[0].client() as admin:
        await administration.drop_login(admin, login.username)
    assert [await store.execute("EXISTS", key) for key in keys] == [0] * len(keys)
    await store.close()


async def test_a_sidecar_prepares_and_serves_a_cluster(
    stores: LocalStores, cluster: RedisCluster, settings: Settings, tmp_path: Path
) -> None:
    credentials = CredentialFiles(tmp_path / "credentials")
    address = RedisAddress(url=cluster.url, credentials=credentials.login("redis"), timeout=2.0)
    config = make_config(stores, settings, credentials, redis=address)
    postgres = Credentials("postgres", stores.postgres_admin_password)
    admin = Credentials(ADMIN, cluster.members[0].admin_password)
    await run_prepare(config, Administrators(admin, postgres))
    async with Running(config) as running:
        await running.wait_until_ready()
        for agent in agents_of(settings):
            answer = await running.send("POST", f"/v1/agents/{agent}/turns", {"events": [{"content": "hello"}]})
            assert answer.status == 201
            page = await running.send("GET", f"/v1/agents/{agent}/events")
            assert [event["content"] for event in page.json()["events"]] == ["hello"]


async def test_the_cluster_of_another_memory_is_refused(
    make_memory: MakeMemory, cluster: RedisCluster, settings: Settings
) -> None:
    async with make_memory() as memory:
        await memory.record("a", parse_turn(b'{"events": [{"content": "x"}]}'))
    holder = await cluster.master_of(settings.keys.identity)
    await holder.ask("SET", settings.keys.identity, "another")
    async with make_memory(work=False) as memory:
        for agent in agents_of(settings):
            with pytest.raises(ForeignStore):
                await memory.record(agent, parse_turn(b'{"events": [{"content": "x"}]}'))
