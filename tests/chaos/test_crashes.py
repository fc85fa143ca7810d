"""SIGKILL of sidecars, Valkey and Postgres under load: no acknowledged turn is lost or doubled.

AGENTMEMORY_SEED chooses another run, AGENTMEMORY_KILLS a longer one.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agentmemory.local.valkey import ValkeySettings
from agentmemory_engine.keys import Keys
from agentmemory_engine.positions import Entry, Position
from support.fleet import Fleet, open_fleet
from support.history import Acknowledged, History, Verdict, judge
from support.memories import admin_postgres

SEED = int(os.environ.get("AGENTMEMORY_SEED", "20260411"))
KILLS = int(os.environ.get("AGENTMEMORY_KILLS", "100"))
WRITERS = 6
TURNS_BETWEEN_KILLS = 15
HEADERS = {"AgentMemory-Client": "crash-test"}


class Writer:
    """Writes turn after turn for two agents, one of its own and one that all share, until told to stop.

    A turn that was not answered is sent again, to whichever sidecar, with the same key and the same bytes.
    """

    def __init__(self, name: str, fleet: Fleet, history: History, session: aiohttp.ClientSession) -> None:
        self.name = name
        self._fleet = fleet
        self._history = history
        self._session = session
        self.stopped = False

    async def run(self) -> None:
        number = 0
        while not self.stopped:
            for agent in (f"agent-{self.name}", "shared"):
                await self._write(agent, number)
            number += 1

    async def _write(self, agent: str, number: int) -> None:
        content = f"{agent} {self.name} {number}"
        self._history.sent.add(content)
        body = {"events": [{"content": content}], "working_memory": {"merge": {self.name: number}}}
        key = f"{self.name}-{number}"
        for attempt in range(10_000):
            sidecar = self._fleet.sidecars[(attempt + number) % len(self._fleet.sidecars)]
            answer = await self._send(f"{sidecar.url}/v1/agents/{agent}/turns", body, key)
            if answer is not None:
                position = Position.parse(answer["position"])
                event = answer["events"][0]["id"]
                self._history.acknowledged.append(Acknowledged(agent, self.name, number, content, event, position))
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{content} was never taken")

    async def _send(self, url: str, body: Any, key: str) -> Any:
        try:
            async with self._session.post(url, json=body, headers=HEADERS | {"Idempotency-Key": key}) as response:
                if response.status == 503:
                    return None
                assert response.status in (200, 201), await response.text()
                return await response.json()
        except (aiohttp.ClientError, TimeoutError):
            return None


class Killer:
    """Kills one process after the other, each after some more turns were acknowledged, and starts it again."""

    def __init__(self, fleet: Fleet, history: History, seed: int) -> None:
        self._fleet = fleet
        self._history = history
        self._random = random.Random(seed)
        self.killed: dict[str, int] = {}

    async def run(self, kills: int) -> None:
        for _ in range(kills):
            await self._progress(self._random.randrange(1, 2 * TURNS_BETWEEN_KILLS))
            await self._kill(self._random.choices(["sidecar", "valkey", "postgres"], [5, 3, 2])[0])

    async def _progress(self, turns: int) -> None:
        goal = len(self._history.acknowledged) + turns
        async with asyncio.timeout(120):
            while len(self._history.acknowledged) < goal:
                await asyncio.sleep(0.005)

    async def _kill(self, what: str) -> None:
        self.killed[what] = self.killed.get(what, 0) + 1
        if what == "sidecar":
            sidecar = self._random.choice(self._fleet.sidecars)
            await sidecar.kill()
            sidecar.start()
        else:
            server = getattr(self._fleet.stores, what)
            await server.kill()
            await server.start()


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_nothing_acknowledged_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    history = History()
    async with open_fleet(tmp_path, sidecars=2, valkey=ValkeySettings(appendfsync="always")) as fleet:
        killed = await _kill_under_load(fleet, history, KILLS)
        verdict = judge(history, *await _read_stores(fleet))
        timeline = await _timeline(fleet, "shared")
        last = {(turn.agent, turn.writer): turn for turn in history.acknowledged}
        states = await _states(fleet, list(last.values()))
    assert sum(killed.values()) == KILLS
    assert verdict == Verdict(), f"seed {SEED}"
    assert states == {"searchable"}, f"seed {SEED}"
    assert timeline == sorted(timeline)


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_what_redis_lost_by_itself_is_reported_as_lost(tmp_path: Path) -> None:
    """Under `everysec` Redis answers before it writes while a slow fsync is under way; SIGKILL may take up to 2 s."""
    history = History()
    kills = max(1, KILLS // 5)
    async with open_fleet(tmp_path, sidecars=2, valkey=ValkeySettings(appendfsync="everysec")) as fleet:
        await _kill_under_load(fleet, history, kills)
        verdict = judge(history, *await _read_stores(fleet))
        states = await _states(fleet, verdict.lost)
        there = await _states(fleet, [turn for turn in history.acknowledged[-200:] if turn not in verdict.lost])
    assert states <= {"lost"}, f"seed {SEED}"
    assert there == {"searchable"}, f"seed {SEED}"
    assert (verdict.doubled, verdict.invented, verdict.reordered, verdict.misplaced) == ([], [], [], []), f"seed {SEED}"


async def _kill_under_load(fleet: Fleet, history: History, kills: int) -> dict[str, int]:
    """Write, kill, and come to rest; answers how often what was killed."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
        writers = [Writer(f"w{number}", fleet, history, session) for number in range(WRITERS)]
        for writer in writers:
            group.create_task(writer.run())
        killer = Killer(fleet, history, SEED)
        await killer.run(kills)
        for writer in writers:
            writer.stopped = True
    await fleet.wait_until_ready()
    await _settle(fleet)
    return killer.killed


async def _settle(fleet: Fleet) -> None:
    """Until nothing is pending."""
    async with asyncio.timeout(60), aiohttp.ClientSession(headers=HEADERS) as session:
        while True:
            async with session.get(f"{fleet.sidecars[0].url}/v1/consolidation") as response:
                if (await response.json())["pending"] == 0:
                    return
            await asyncio.sleep(0.05)


async def _read_stores(fleet: Fleet) -> tuple[list[Any], dict[str, bytes]]:
    schema = Keys("test", "fleet").schema
    connection = await admin_postgres(fleet.stores)
    events = await connection.fetch(f'SELECT agent_id, id, content, opening, sequence FROM "{schema}".memory_events')
    dead = await connection.fetch(
        f"SELECT agent_id, id, convert_from(raw, 'UTF8') AS content, opening, sequence FROM \"{schema}\".dead_letters"
    )
    await connection.close()
    documents = {}
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for agent in {row["agent_id"] for row in events}:
            async with session.get(f"{fleet.sidecars[0].url}/v1/agents/{agent}/working-memory") as response:
                assert response.status == 200, await response.text()
                documents[agent] = await response.read()
    return [*events, *dead], documents


async def _timeline(fleet: Fleet, agent: str) -> list[tuple[Entry, int]]:
    """Order of the whole timeline, over all its pages."""
    places: list[tuple[Entry, int]] = []
    cursor = None
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        while True:
            params = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
            url = f"{fleet.sidecars[-1].url}/v1/agents/{agent}/events"
            async with session.get(url, params=params) as response:
                page = await response.json()
            places += [(Position.parse(event["position"]).entry, event["index"]) for event in page["events"]]
            cursor = page.get("cursor")
            if cursor is None:
                return places


async def _states(fleet: Fleet, turns: list[Acknowledged]) -> set[str]:
    """What is said of the positions of these turns."""
    states = set()
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for turn in turns:
            params = {"agent": turn.agent, "position": str(turn.position)}
            async with session.get(f"{fleet.sidecars[0].url}/v1/consolidation", params=params) as response:
                states.add((await response.json())["state"])
    return states
