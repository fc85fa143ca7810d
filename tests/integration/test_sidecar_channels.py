"""Channels as clients see them: statuses, streams, refusals; and the client against the sidecar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from agentmemory import AgentMemory, KeyReused, Message, PositionLost, Retries, StoreUnavailable
from agentmemory.channels import BEGINNING
from agentmemory.local.stores import LocalStores
from agentmemory_sidecar import streams
from agentmemory_sidecar.config import Config
from support.memories import admin_redis
from support.sidecars import CLIENT, Answer, Running

CHANNELS = "/v1/channels"
MESSAGES = "/v1/channels/c/messages"
GROUP = "/v1/channels/c/groups/g"


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


async def publish(sidecar: Running, payload: Any, channel: str = "c", **headers: str) -> str:
    body = {"from": "a", "payload": payload}
    answer = await sidecar.send("POST", f"/v1/channels/{channel}/messages", body, headers=headers)
    assert answer.status == 201, answer.body
    return str(answer.json()["position"])


@pytest.fixture
async def memory(sidecar: Running) -> AsyncIterator[AgentMemory]:
    async with AgentMemory(sidecar.url, client_name="tests") as memory:
        yield memory


@asynccontextmanager
async def stream(sidecar: Running, query: str = "", **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    every = CLIENT | {"Accept": "text/event-stream"} | headers
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sidecar.url}{MESSAGES}{query}", headers=every) as response,
    ):
        assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["AgentMemory-Request-Id"] and response.headers["Cache-Control"] == "no-store"
        yield response


async def next_block(response: aiohttp.ClientResponse) -> str:
    """One event, or one comment."""
    lines: list[str] = []
    async with asyncio.timeout(30):
        while (line := (await response.content.readuntil(b"\n")).decode()) != "\n":
            lines.append(line)
    return "".join(lines)


async def until_followed(sidecar: Running) -> None:
    async with asyncio.timeout(30):
        while not sidecar.memory.channels.followers._waiting:
            await asyncio.sleep(0.001)


async def test_a_message_from_one_to_the_other(sidecar: Running) -> None:
    raw = b'{"from": "a", "type": "result", "payload": {"n": 1.50}, "metadata": {"task": "q2"}}'
    key = {"Idempotency-Key": "k"}
    first = await sidecar.send("POST", MESSAGES, raw=raw, headers=key)
    again = await sidecar.send("POST", MESSAGES, raw=raw, headers=key)
    position = first.json()["position"]
    assert (first.status, first.json()["repeated"]) == (201, False)
    assert (again.status, again.json()) == (200, {"position": position, "repeated": True})
    other = await sidecar.send("POST", MESSAGES, {"from": "a", "payload": 2}, headers=key)
    assert refused(other) == (422, "idempotency-key-reused")
    page = await sidecar.send("GET", MESSAGES)
    assert b'{"n": 1.50}' in page.body
    [message] = page.json()["messages"]
    assert message.pop("at")
    assert message == {
        "position": position, "from": "a", "type": "result", "payload": {"n": 1.5}, "metadata": {"task": "q2"},
    }  # fmt: skip
    assert (page.json()["position"], page.json()["trimmed"], page.json()["missed"]) == (position, False, 0)
    after = (await sidecar.send("GET", f"{MESSAGES}?after={position}&wait=0.01")).json()
    assert after == {"messages": [], "position": position, "trimmed": False, "missed": 0}
    listed = (await sidecar.send("GET", CHANNELS)).json()
    assert listed == {"channels": [{"channel": "c", "length": 1, "position": position}], "cursor": None}


async def test_channels_are_listed_page_by_page(sidecar: Running, memory: AgentMemory) -> None:
    for name in ("b", "a", "c"):
        await publish(sidecar, 1, name)
    assert [one.channel async for one in memory.channels(page_size=1)] == ["a", "b", "c"]
    assert refused(await sidecar.send("GET", CHANNELS + "?limit=0")) == (422, "invalid-request")


async def test_nothing_is_taken_for_a_consumer_that_has_hung_up(sidecar: Running) -> None:
    followers, server = sidecar.memory.channels.followers, sidecar.sidecar._api.server
    assert server is not None
    before = len(server.connections)
    _, writer = await asyncio.open_connection("127.0.0.1", sidecar.sidecar.port)
    writer.write(
        f"GET {MESSAGES}?group=g&consumer=gone&wait=30 HTTP/1.1\r\nHost: localhost:{sidecar.sidecar.port}\r\n"
        "AgentMemory-Client: tests\r\n\r\n".encode()
    )
    async with asyncio.timeout(30):
        while not followers._waiting:
            await asyncio.sleep(0.01)
        writer.close()
        while len(server.connections) > before:
            await asyncio.sleep(0.01)
        await publish(sidecar, 1)
        while followers._count:
            await asyncio.sleep(0.01)
    page = (await sidecar.send("GET", MESSAGES + "?group=g&consumer=here")).json()
    assert [one["payload"] for one in page["messages"]] == [1]


async def test_a_group_takes_acknowledges_and_ends(sidecar: Running) -> None:
    positions = [await publish(sidecar, n) for n in range(3)]
    page = (await sidecar.send("GET", MESSAGES + "?group=g&consumer=one&limit=2")).json()
    assert [(one["payload"], one["deliveries"]) for one in page["messages"]] == [(0, 1), (1, 1)]
    assert (page["position"], page["trimmed"]) == (None, False)
    rest = (await sidecar.send("GET", MESSAGES + "?group=g&consumer=two&wait=0.05")).json()
    assert [one["payload"] for one in rest["messages"]] == [2]
    done = await sidecar.send("POST", GROUP + "/ack", {"positions": positions})
    assert done.json() == {"acknowledged": 3}
    assert (await sidecar.send("POST", GROUP + "/ack", {"positions": positions})).json() == {"acknowledged": 0}
    assert (await sidecar.send("DELETE", GROUP)).json() == {"deleted": True}
    assert (await sidecar.send("DELETE", GROUP)).json() == {"deleted": False}


async def test_a_stream_sends_what_was_and_what_comes(sidecar: Running) -> None:
    first = await publish(sidecar, "one")
    async with stream(sidecar, "?after=-") as response:
        assert await next_block(response) == "retry: 1000\n"
        block = await next_block(response)
        assert block.startswith(f"id: {first}\ndata: ") and json.loads(block.partition("data: ")[2])["payload"] == "one"
        await until_followed(sidecar)
        answer = await sidecar.send("POST", MESSAGES, raw=b'{"from": "a", "payload": {\r\n"n":\r1,\n"m": 2}}')
        block = await next_block(response)
        head, *lines = block.splitlines()
        assert head == f"id: {answer.json()['position']}" and len(lines) == 4
        assert json.loads("\n".join(line.removeprefix("data: ") for line in lines))["payload"] == {"n": 1, "m": 2}
    async with stream(sidecar, "?after=$", **{"Last-Event-ID": first}) as response:
        assert await next_block(response) == "retry: 1000\n"
        assert '"n"' in await next_block(response)


async def test_a_stream_that_has_nothing_yet_says_where_it_stands(sidecar: Running) -> None:
    first = await publish(sidecar, 1)
    async with stream(sidecar, "?after=$") as response:
        assert [await next_block(response) for _ in range(2)] == ["retry: 1000\n", f"id: {first}\n"]


async def test_a_stream_without_messages_has_a_heart(sidecar: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.0)
    async with stream(sidecar) as response:
        assert (await next_block(response), await next_block(response))[0] == "retry: 1000\n"
        assert [await next_block(response) for _ in range(2)] == [":\n", ":\n"]


async def test_a_stream_says_what_was_trimmed(config: Config) -> None:
    settings = replace(config.settings, channel_messages=2)
    async with Running(replace(config, settings=settings)) as sidecar:
        await sidecar.wait_until_ready()
        first, *_ = [await publish(sidecar, n) for n in range(5)]
        page = (await sidecar.send("GET", f"{MESSAGES}?after={first}")).json()
        assert (page["trimmed"], page["missed"], len(page["messages"])) == (True, 2, 2)
        async with stream(sidecar, **{"Last-Event-ID": first}) as response:
            await next_block(response)
            assert await next_block(response) == 'event: trimmed\ndata: {"missed":2}\n'
        async with AgentMemory(sidecar.url) as memory, aclosing(memory.channel("c").follow(after=first)) as messages:
            found = [await anext(messages), await anext(messages)]
            assert [(one.payload, one.missed) for one in found] == [(3, 2), (4, 0)]


async def test_a_follower_that_goes_leaves_its_place(config: Config) -> None:
    async with Running(replace(config, settings=replace(config.settings, followers=1))) as sidecar:
        await sidecar.wait_until_ready()
        async with stream(sidecar):
            await until_followed(sidecar)
            accept = {"Accept": "text/event-stream"}
            assert refused(await sidecar.send("GET", MESSAGES, headers=accept)) == (503, "too-many-followers")
        async with asyncio.timeout(30):
            while sidecar.memory.channels.followers._count:
                await asyncio.sleep(0.01)
        async with stream(sidecar) as response:
            assert await next_block(response) == "retry: 1000\n"


async def test_streams_end_whole_when_the_sidecar_stops(config: Config) -> None:
    async with Running(config) as sidecar:
        await sidecar.wait_until_ready()
        async with stream(sidecar) as response:
            await until_followed(sidecar)
            polling = asyncio.create_task(sidecar.send("GET", MESSAGES + "?wait=30"))
            async with asyncio.timeout(30):
                while sidecar.memory.channels.followers._count < 2:
                    await asyncio.sleep(0.001)
            stopping = asyncio.create_task(sidecar.sidecar.stop())
            assert b"problem" not in await response.content.read()
            assert (await polling).json()["messages"] == []
            await stopping


async def test_without_redis_all_of_it_says_so(stores: LocalStores, sidecar: Running) -> None:
    async with stream(sidecar) as response:
        await until_followed(sidecar)
        polling = asyncio.create_task(sidecar.send("GET", MESSAGES + "?wait=30"))
        async with asyncio.timeout(30):
            while sidecar.memory.channels.followers._count < 2:
                await asyncio.sleep(0.001)
        await stores.valkey.stop()
        try:
            rest = (await response.content.read()).decode()
            name, _, data = rest.strip().rpartition("\n\n")[2].partition("\ndata: ")
            assert name == "event: problem" and json.loads(data)["type"].endswith("/store-unavailable")
            assert refused(await polling) == (503, "store-unavailable")
            for method, path, body in (
                ("POST", MESSAGES, {"from": "a", "payload": 1}), ("GET", MESSAGES, None), ("GET", CHANNELS, None),
                ("GET", MESSAGES + "?group=g&consumer=c", None), ("DELETE", GROUP, None),
                ("POST", GROUP + "/ack", {"positions": [await _position(sidecar)]}),
            ):  # fmt: skip
                assert refused(await sidecar.send(method, path, body)) == (503, "store-unavailable")
            accept = {"Accept": "text/event-stream"}
            assert refused(await sidecar.send("GET", MESSAGES, headers=accept)) == (503, "store-unavailable")
        finally:
            await stores.valkey.start()
    await sidecar.wait_until_ready()
    await publish(sidecar, 1)


async def _position(sidecar: Running) -> str:
    return f"{sidecar.memory.settings.shard_of('c')}.1-1"


BAD: list[tuple[str, str, Any, tuple[int, str]]] = [
    ("POST", "/v1/channels/no%20channel/messages", {"from": "a", "payload": 1}, (422, "invalid-channel")),
    ("POST", "/v1/channels//messages", {"from": "a", "payload": 1}, (422, "invalid-channel")),
    ("GET", f"/v1/channels/{'x' * 129}/messages", None, (422, "invalid-channel")),
    ("GET", "/v1/channels/%7Ba%7D/messages", None, (422, "invalid-channel")),
    ("POST", MESSAGES, {"payload": 1}, (422, "invalid-request")),
    ("POST", MESSAGES, {"from": "a"}, (422, "invalid-request")),
    ("POST", MESSAGES, {"from": "", "payload": 1}, (422, "invalid-agent-id")),
    ("POST", MESSAGES, {"from": "other", "payload": 1}, (403, "agent-not-allowed")),
    ("POST", MESSAGES, {"from": "a", "payload": 1, "to": "b"}, (422, "invalid-request")),
    ("POST", MESSAGES, {"from": "a", "payload": 1, "type": ""}, (422, "invalid-request")),
    ("POST", MESSAGES, {"from": "a", "payload": 1, "type": "t" * 65}, (422, "invalid-request")),
    ("POST", MESSAGES, {"from": "a", "payload": 1, "metadata": [1]}, (422, "invalid-request")),
    ("POST", MESSAGES, {"from": "a", "payload": "\x00"}, (422, "unstorable-text")),
    ("POST", MESSAGES, {"from": "a", "payload": "x" * (256 << 10)}, (413, "too-large")),
    ("POST", MESSAGES + "?wait=1", {"from": "a", "payload": 1}, (422, "invalid-request")),
    ("GET", MESSAGES + "?after=yesterday", None, (422, "invalid-position")),
    ("GET", MESSAGES + "?after=", None, (422, "invalid-position")),
    ("GET", MESSAGES + "?after=9999.1-1", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?limit=0", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?limit=1001", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?wait=-1", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?wait=31", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?wait=nan", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?group=g", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?consumer=c", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?redeliver_after=5", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?group=a%20b&consumer=c", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?group=g&consumer=", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?group=g&consumer=c&redeliver_after=0", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?group=g&consumer=c&redeliver_after=nan", None, (422, "invalid-request")),
    ("GET", MESSAGES + "?unknown=1", None, (422, "invalid-request")),
    ("POST", GROUP + "/ack", {"positions": []}, (422, "invalid-request")),
    ("POST", GROUP + "/ack", {"positions": ["-"]}, (422, "invalid-request")),
    ("POST", GROUP + "/ack", {"positions": ["x"]}, (422, "invalid-position")),
    ("POST", GROUP + "/ack", {}, (422, "invalid-request")),
    ("POST", "/v1/channels/c/groups/%20/ack", {"positions": ["0.1-1"]}, (422, "invalid-request")),
    ("DELETE", "/v1/channels/c/groups/%20", None, (422, "invalid-request")),
]


async def test_bad_input_is_refused_and_leaves_nothing(config: Config) -> None:
    async with Running(replace(config, agents=("a", "b"))) as sidecar:
        await sidecar.wait_until_ready()
        for method, path, body, wanted in BAD:
            assert refused(await sidecar.send(method, path, body)) == wanted, (method, path, body)
        accept = {"Accept": "text/event-stream"}
        for query in ("?group=g&consumer=c", "?wait=1", "?after=x"):
            assert (await sidecar.send("GET", MESSAGES + query, headers=accept)).status == 422
        for position in (f"{await _position(sidecar)}",):
            for headers in ({}, accept):
                lost = await sidecar.send("GET", f"{MESSAGES}?after={position}", headers=headers)
                assert refused(lost) == (410, "position-lost")
        assert (await sidecar.send("GET", CHANNELS)).json()["channels"] == []


async def test_the_client_publishes_reads_and_takes(memory: AgentMemory) -> None:
    channel = memory.channel("c")
    first = await channel.publish({"n": 1}, sender="a", type="t", metadata={"m": 1}, idempotency_key="k")
    assert (await channel.publish({"n": 1}, sender="a", type="t", metadata={"m": 1}, idempotency_key="k")).repeated
    with pytest.raises(KeyReused):
        await channel.publish(None, sender="a", idempotency_key="k")
    page = await channel.read()
    assert [(one.position, one.sender, one.payload, one.metadata) for one in page.messages] == [
        (first.position, "a", {"n": 1}, {"m": 1})
    ]
    assert (await channel.read(after=first.position, wait=0.05)).messages == []
    taken = await channel.take("g", "one", wait=1.0)
    assert [one.deliveries for one in taken.messages] == [1]
    assert await channel.acknowledge("g", taken.messages) == 1
    assert await channel.drop_group("g") is True
    with pytest.raises(ValueError):
        memory.channel("")


async def test_the_client_follows_over_a_restart_of_redis(
    stores: LocalStores, sidecar: Running, memory: AgentMemory
) -> None:
    channel = memory.channel("c")
    await channel.publish(0, sender="a")
    found: list[Message] = []
    async with aclosing(channel.follow(after=BEGINNING)) as messages:
        found.append(await anext(messages))
        waiting = asyncio.ensure_future(anext(messages))
        await until_followed(sidecar)
        await stores.valkey.stop()
        await stores.valkey.start()
        await sidecar.wait_until_ready()
        for n in (1, 2):
            await channel.publish(n, sender="a")
        async with asyncio.timeout(60):
            found += [await waiting, await anext(messages)]
    assert [one.payload for one in found] == [0, 1, 2] and {one.missed for one in found} == {0}


async def test_the_client_is_told_of_a_lost_position_and_of_a_store_that_stays_away(
    stores: LocalStores, sidecar: Running
) -> None:
    async with AgentMemory(sidecar.url, retries=Retries(budget=0.0)) as memory:
        with pytest.raises(PositionLost):
            await anext(memory.channel("c").follow(after=await _position(sidecar)))
        await memory.channel("c").publish(0, sender="a")
        async with aclosing(memory.channel("c").follow()) as messages:
            waiting = asyncio.ensure_future(anext(messages))
            await until_followed(sidecar)
            await stores.valkey.stop()
            try:
                with pytest.raises(StoreUnavailable):
                    await waiting
            finally:
                await stores.valkey.start()
    async with admin_redis(stores) as admin:
        assert await admin.ping()
