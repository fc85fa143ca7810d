"""The command line tool against a whole memory: what a user does from the first start to the last stop."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from agentmemory import AgentMemory, Expired, InvalidRequest, Position
from agentmemory.local import StoreFailed
from agentmemory.runner import ConfigMissing, LocalMemory, PortTaken, SidecarDied
from support.machine import begin, client_of, end, free_ports, local_memory, tool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMemory]:
    directory = tmp_path_factory.mktemp("machine")
    async with local_memory(directory, provider="Local", ttl="1s") as memory:
        yield memory
    await LocalMemory.erase(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def client(machine: LocalMemory) -> AsyncIterator[AgentMemory]:
    async with client_of(machine) as client:
        yield client


async def test_what_is_told_is_recalled(machine: LocalMemory) -> None:
    told = await tool(
        machine.url, "turn", "The launch moved to Thursday.", "--agent", "teller", "--role", "user", "--session", "s1",
        "--at", "2026-01-12T09:00:00Z", "--merge", '{"launch": "Thursday"}', "--wait", "searchable", "--json",
    )  # fmt: skip
    assert told.status == 0, told.err
    receipt = json.loads(told.out)
    await tool(
        machine.url, "turn", "The cat sleeps.", "--agent", "teller", "--type", "observation", "--wait", "searchable"
    )

    recalled = await tool(machine.url, "recall", "when do we start?", "--agent", "teller", "-k", "1", "--json")
    (hit,) = json.loads(recalled.out)["hits"]
    assert (hit["content"], hit["id"]) == ("The launch moved to Thursday.", receipt["events"][0]["id"])
    assert (
        "2026-01-12 09:00:00Z  s1  message/user  The launch moved to Thursday."
        in (await tool(machine.url, "timeline", "--agent", "teller", "--session", "s1")).out
    )
    typed = await tool(machine.url, "timeline", "--agent", "teller", "--type", "observation", "--json")
    assert [json.loads(line)["content"] for line in typed.out.splitlines()] == ["The cat sleeps."]
    assert "Thursday" in (await tool(machine.url, "hydrate", "when do we start?", "--agent", "teller")).out
    state = await tool(machine.url, "status", "--agent", "teller", "--position", receipt["position"])
    assert state.out == "searchable\n"


async def test_the_same_key_is_the_same_turn(machine: LocalMemory) -> None:
    arguments = ("turn", "Once.", "--agent", "keyed", "--key", "k1", "--at", "2026-01-12", "--json")
    first, second = [json.loads((await tool(machine.url, *arguments)).out) for _ in range(2)]
    assert (first["repeated"], second["repeated"]) == (False, True)
    assert first["events"] == second["events"]
    other = await tool(machine.url, "turn", "Twice.", "--agent", "keyed", "--key", "k1", "--at", "2026-01-12")
    assert other.status == 1
    assert other.err.startswith("agentmemory: ") and other.err.count("\n") == 1


async def test_a_document_expires_and_is_restored(machine: LocalMemory, client: AgentMemory) -> None:
    agent = client.agent("sleeper")
    written = await agent.put({"step": 3})
    with pytest.raises(Expired) as caught:
        while True:
            assert (await agent.working_memory()).document == {"step": 3}
    assert caught.value.version == written.version
    assert (await agent.working_memory(version=written.version)).document == {"step": 3}
    woken = await tool(machine.url, "hydrate", "--agent", "sleeper", "--restore", "--json")
    assert json.loads(woken.out)["cold_start"] == "expired"
    assert (await agent.working_memory()).document == {"step": 3}


async def test_a_dead_letter_is_kept_listed_refused_again_and_discarded(
    machine: LocalMemory, client: AgentMemory, tmp_path: Path
) -> None:
    # Postgres keeps metadata as jsonb, which has no number of that size; no client of ours would send it.
    body = b'{"events": [{"content": "x", "metadata": {"n": 1e200000}}]}'
    headers = {"AgentMemory-Client": "tests", "Content-Type": "application/json"}
    url = f"{machine.url}/v1/agents/doomed/turns"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, data=body) as response:
        assert response.status == 201
        position = (await response.json())["position"]
    await client.wait(Position("doomed", position))
    listed = await tool(machine.url, "dead-letters", "list", "--json")
    assert "1E+200000" in listed.out
    letter = json.loads(listed.out)
    assert letter["agent"] == "doomed"
    assert letter["id"] in (await tool(machine.url, "dead-letters", "list")).out

    file = tmp_path / "letters.jsonl"
    assert (await tool(machine.url, "dead-letters", "export", file)).status == 0
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == [letter["id"]]
    replayed = await tool(machine.url, "dead-letters", "replay", "doomed", letter["id"])
    assert (replayed.status, replayed.err.startswith("agentmemory: ")) == (1, True)
    with pytest.raises(InvalidRequest):
        await client.replay("doomed", letter["id"])
    assert (await tool(machine.url, "dead-letters", "discard", "doomed", letter["id"], "--yes")).status == 0
    again = await tool(machine.url, "dead-letters", "discard", "doomed", letter["id"], "--yes")
    assert again.status == 1
    assert (await tool(machine.url, "dead-letters", "list", "--json")).out == ""


async def test_status_tells_when_a_store_is_down(machine: LocalMemory, client: AgentMemory) -> None:
    well = await tool(machine.url, "status")
    assert (well.status, "4 of 4" in well.out) == (0, True)
    await machine.stores.postgres.stop()
    try:
        ill = await tool(machine.url, "status", "--json")
        assert (ill.status, json.loads(ill.out)["degraded"]) == (1, ["postgres"])
    finally:
        await machine.stores.postgres.start()
    await client.wait_until_ready()


async def test_no_sidecar_is_told_apart(machine: LocalMemory) -> None:
    port, _ = free_ports()
    nobody = await tool(f"http://127.0.0.1:{port}", "status")
    assert nobody.status == 3
    store = await tool(machine.ops_url, "status")
    assert store.status == 1
    assert "is not AgentMemory" in store.err or "404" in store.err


async def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, (ops_port, _) = taken.getsockname()[1], free_ports()
        refused = await tool(
            "", "local", "--data-dir", tmp_path / "data", "--port", str(port), "--ops-port", str(ops_port)
        )
        assert refused.status == 1
        assert f"Port {port} on 127.0.0.1 is taken" in refused.err and "--port" in refused.err
        with pytest.raises(PortTaken, match="--ops-port"):
            await LocalMemory(tmp_path / "data", port=ops_port, ops_port=port).start()
    assert not (tmp_path / "data").exists()


async def test_a_config_that_is_missing_or_wrong_is_told(tmp_path: Path) -> None:
    port, ops_port = free_ports()
    with pytest.raises(ConfigMissing):
        await LocalMemory(tmp_path, config=tmp_path / "none.yaml", port=port, ops_port=ops_port).start()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: Deployment\n")
    memory = LocalMemory(tmp_path / "data", config=wrong, port=port, ops_port=ops_port)
    with pytest.raises(StoreFailed, match="kind"):
        await memory.start()
    assert not memory.stores.valkey.running and not memory.stores.postgres.running
    await LocalMemory.erase(tmp_path / "data")


async def test_local_keeps_what_it_was_told_until_it_is_erased(tmp_path: Path) -> None:
    port, ops_port = map(str, free_ports())
    url = f"http://127.0.0.1:{port}"
    arguments = ("local", "--data-dir", tmp_path, "--port", port, "--ops-port", ops_port)
    for number, options in enumerate([(), (), ("--fresh",)]):
        running = await begin("", *arguments, *options)
        assert running.stdout is not None
        shown = (await running.stdout.readuntil(b"Ctrl-C")).decode()
        assert f"API               {url} " in shown and f"curl -s {url}/v1/agents" in shown
        async with AgentMemory(url) as client:
            before = [event.content async for event in client.agent("a").timeline()]
            assert before == ["0"] * (number == 1)
            await client.agent("a").say(str(number))
        servers = psutil.Process(running.pid).children(recursive=True)
        running.send_signal((signal.SIGINT, signal.SIGTERM)[number % 2])
        ended = await end(running)
        assert (ended.status, ended.err) == (0, "")
        assert "What was acknowledged is kept" in ended.out
        assert [server for server in servers if server.is_running()] == []
    await LocalMemory.erase(tmp_path)
    assert not (tmp_path / "credentials").exists() and not list(tmp_path.glob("sidecar.log*"))


async def test_a_sidecar_that_ends_by_itself_ends_local_with_its_last_words(tmp_path: Path) -> None:
    memory = local_memory(tmp_path, provider="None")
    async with memory:
        os.kill(memory.sidecar.pid, signal.SIGTERM)
        with pytest.raises(SidecarDied, match=r"sidecar\.log"):
            await memory.wait_for_sidecar()
        await memory.start_sidecar()
    await LocalMemory.erase(tmp_path)


async def test_the_demonstration_ends_with_equal_numbers(tmp_path: Path) -> None:
    port, ops_port = map(str, free_ports())
    played = await tool("", "demo", "--data-dir", tmp_path, "--port", port, "--ops-port", ops_port)
    assert played.status == 0, played.out + played.err
    assert "lost 0, doubled 0" in played.out
    assert "cold start expired" in played.out and "SIGKILL" in played.out
    await LocalMemory.erase(tmp_path)
