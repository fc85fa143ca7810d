"""Export and erasure by the client, against a server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentmemory import AgentMemory, CutOff, Retries
from support.stub_sidecar import DROP, Reply, StubSidecar, problem, reply

QUICK = Retries(budget=5.0, first=0.001, longest=0.01)
END = b'{"kind":"end","sessions":0,"events":0,"knowledge":0,"dead_letters":0}\n'
HEADER = b'{"kind":"export","format":1,"agent":"a","position":"3.1-1"}\n'
ACCEPTED = {"agent": "a", "position": "3.1-7", "idempotency_key": "k", "repeated": False}


@pytest.fixture
async def stub() -> AsyncIterator[StubSidecar]:
    async with StubSidecar().serve() as server:
        yield server


@pytest.fixture
async def memory(stub: StubSidecar) -> AsyncIterator[AgentMemory]:
    async with AgentMemory(stub.url, client_name="tests", timeout=5.0, retries=QUICK) as opened:
        yield opened


async def test_an_export_is_tried_again_until_it_begins(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(DROP, problem("shard-closed", 503), Reply(body=HEADER + END))
    assert [line async for line in memory.agent("a").export()] == [HEADER, END]
    assert [(seen.method, seen.path) for seen in stub.seen] == [("GET", "/v1/agents/a/export")] * 3


@pytest.mark.parametrize("body", [HEADER, b"", HEADER + END[:-1]])
async def test_an_export_without_its_end_is_cut_off(stub: StubSidecar, memory: AgentMemory, body: bytes) -> None:
    stub.will(Reply(body=body))
    with pytest.raises(CutOff):
        async for _ in memory.agent("a").export():
            pass


async def test_an_erasure_waits_in_steps_under_one_key(stub: StubSidecar, memory: AgentMemory) -> None:
    done = ACCEPTED | {"redis": {"documents": 1}, "postgres": {"events": 2}}
    stub.will(reply(ACCEPTED, status=202), reply(done))
    erasure = await memory.agent("a").erase(within=90.0)
    assert erasure.done and erasure.postgres == {"events": 2}
    assert [seen.query[0][0] for seen in stub.seen] == ["timeout_seconds"] * 2
    assert len({seen.headers["Idempotency-Key"] for seen in stub.seen}) == 1


async def test_an_erasure_that_takes_longer_says_so(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply(ACCEPTED, status=202))
    erasure = await memory.agent("a").erase(within=0.0, idempotency_key="mine")
    assert not erasure.done
    assert [(seen.query, seen.headers["Idempotency-Key"]) for seen in stub.seen] == [
        ((("timeout_seconds", "0.000"),), "mine")
    ]
