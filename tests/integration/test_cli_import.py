"""The import of a conversation into a real memory, cut off and disturbed in every way."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentmemory import AgentMemory, Event
from agentmemory.runner import LocalMemory
from support.machine import administrator, begin, client_of, end, local_memory, tool

LINES = 12_000
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMemory]:
    directory = tmp_path_factory.mktemp("machine")
    async with local_memory(directory, provider="None") as memory:
        yield memory
    await LocalMemory.erase(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def client(machine: LocalMemory) -> AsyncIterator[AgentMemory]:
    async with client_of(machine) as client:
        yield client


def line(number: int) -> dict[str, Any]:
    # Few words, few times, few speakers: hardly a line differs from others in more than its id.
    return {
        "id": number,
        "at": f"2026-01-12T09:{number // 600 % 60:02}:00Z",
        "session": f"day-{number // 500}",
        "speaker": ("capcom", "lovell")[number % 2],
        "content": ("Roger.", "Okay.", "Say again?")[number % 3],
    }


def write(file: Path, *numbers: int) -> Path:
    file.write_text("".join(json.dumps(line(number)) + "\n" for number in numbers))
    return file


async def timeline(client: AgentMemory, agent: str) -> list[Event]:
    return [event async for event in client.agent(agent).timeline(page_size=1000)]


def check(found: list[Event], *numbers: int) -> None:
    """Each of these lines once, in order, as it was."""
    assert [event.metadata["import_id"] for event in found if event.metadata] == list(numbers)
    for event, number in zip(found, numbers, strict=True):
        said = line(number)
        assert (event.role, event.content, event.session) == (said["speaker"], said["content"], said["session"])
        assert f"{event.at:%Y-%m-%dT%H:%M:%SZ}" == said["at"]


async def reach(client: AgentMemory, agent: str, number: int) -> None:
    """Return once line `number` is in memory."""
    while not (await client.agent(agent).timeline_page(session=f"day-{number // 500}", limit=1)).events:
        await asyncio.sleep(0.002)


async def test_every_line_is_an_event_and_a_second_run_adds_none(
    machine: LocalMemory, client: AgentMemory, tmp_path: Path
) -> None:
    numbers = range(1, 701)
    file = write(tmp_path / "talk.jsonl", *numbers)
    first = await tool(machine.url, "import", file, "--agent", "whole", "--json")
    assert first.status == 0, first.err
    answer = json.loads(first.out)
    assert (answer["lines"], answer["already_there"], answer["dead_letters"]) == (700, 0, 0)
    assert answer["seconds_searchable"] >= answer["seconds_durable"] >= answer["seconds_sent"] > 0
    check(await timeline(client, "whole"), *numbers)

    for arguments in ((), ("--no-resume",)):
        again = await tool(machine.url, "import", file, "--agent", "whole", "--json", *arguments)
        assert json.loads(again.out)["already_there"] == 700
    check(await timeline(client, "whole"), *numbers)


@pytest.mark.parametrize("arguments", [(), ("--no-resume",)])
async def test_a_run_that_was_killed_goes_on_without_a_double(
    machine: LocalMemory, client: AgentMemory, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    numbers = range(1, LINES + 1)
    file = write(tmp_path / "talk.jsonl", *numbers)
    agent = "-".join(["cut", *arguments])
    cut = await begin(machine.url, "import", file, "--agent", agent)
    await reach(client, agent, LINES // 4)
    cut.kill()
    await end(cut)
    held = len(await timeline(client, agent))
    assert LINES // 4 <= held < LINES

    second = await tool(machine.url, "import", file, "--agent", agent, "--json", *arguments)
    assert second.status == 0, second.err
    assert json.loads(second.out)["already_there"] >= held
    check(await timeline(client, agent), *numbers)


async def test_an_interrupted_run_says_how_to_go_on(machine: LocalMemory, client: AgentMemory, tmp_path: Path) -> None:
    # What a shell runs in the background ignores SIGINT, and so would all that it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    file = write(tmp_path / "talk.jsonl", *range(1, LINES + 1))
    cut = await begin(machine.url, "import", file, "--agent", "interrupted")
    signal.signal(signal.SIGINT, before)
    await reach(client, "interrupted", LINES // 4)
    cut.send_signal(signal.SIGINT)
    ended = await end(cut)
    assert ended.status == 130
    assert "Run it again, and it goes on from there." in ended.err
    assert "Traceback" not in ended.err


async def test_a_killed_sidecar_only_holds_an_import_up(
    machine: LocalMemory, client: AgentMemory, tmp_path: Path
) -> None:
    numbers = range(1, LINES + 1)
    file = write(tmp_path / "talk.jsonl", *numbers)
    running = await begin(machine.url, "import", file, "--agent", "held-up", "--json")
    await reach(client, "held-up", LINES // 4)
    await machine.kill_sidecar()
    await machine.start_sidecar()
    ended = await end(running)
    assert ended.status == 0, ended.err
    check(await timeline(client, "held-up"), *numbers)


async def test_what_redis_has_forgotten_is_not_doubled(
    machine: LocalMemory, client: AgentMemory, tmp_path: Path
) -> None:
    numbers = range(1, 201)
    file = write(tmp_path / "talk.jsonl", *numbers)
    assert (await tool(machine.url, "import", file, "--agent", "forgotten")).status == 0
    async with administrator(machine) as connection:
        keys = [key async for key in connection.scan_iter(match="*:key:forgotten:*")]
        assert await connection.delete(*keys) == len(keys) > 0
    again = await tool(machine.url, "import", file, "--agent", "forgotten", "--no-resume", "--json")
    assert again.status == 0, again.err
    assert json.loads(again.out)["already_there"] == 0
    check(await timeline(client, "forgotten"), *numbers)


async def test_a_file_that_grew_and_was_mended_adds_what_is_new(
    machine: LocalMemory, client: AgentMemory, tmp_path: Path
) -> None:
    file = write(tmp_path / "talk.jsonl", *range(1, 101))
    broken = file.read_text().splitlines()
    broken[49] = broken[49][:-1]
    file.write_text("\n".join(broken))
    refused = await tool(machine.url, "import", file, "--agent", "grown")
    assert (refused.status, "line 50" in refused.err) == (1, True)
    assert await timeline(client, "grown") == []

    first = await tool(machine.url, "import", file, "--agent", "grown", "--skip-bad", "--json")
    assert (json.loads(first.out)["lines"], json.loads(first.out)["skipped"]) == (99, 1)
    write(file, *range(1, 151))
    second = await tool(machine.url, "import", file, "--agent", "grown", "--json")
    assert json.loads(second.out)["already_there"] == 99
    check(await timeline(client, "grown"), *range(1, 50), *range(51, 101), 50, *range(101, 151))
