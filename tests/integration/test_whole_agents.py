"""All of an agent over HTTP and by the tool: exported, imported again, erased; and who may."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentmemory import AgentMemory, CutOff, WholeAgentNotAllowed
from agentmemory.local.stores import LocalStores
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.export import Exporter, Fact, LetterLine
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import FactFilter, NewFact
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import parse_turn
from agentmemory_sidecar.config import Config
from support.backups import flush
from support.memories import MakeMemory, admin_postgres, parts_of
from support.sidecars import LettersEmbedder, Running


@pytest.fixture
async def sidecar(config: Config) -> AsyncIterator[Running]:
    """A sidecar that is ready, and may export and erase."""
    async with Running(replace(config, allow_whole=True)) as running:
        await running.wait_until_ready()
        yield running


async def execute(stores: LocalStores, settings: Settings, sql: str, *args: Any) -> list[Any]:
    connection = await admin_postgres(stores)
    try:
        return await connection.fetch(sql.replace("{schema}", f'"{settings.keys.schema}"'), *args)
    finally:
        await connection.close()


async def export(sidecar: Running, agent: str) -> list[dict[str, Any]]:
    answer = await sidecar.send("GET", f"/v1/agents/{agent}/export")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert answer.headers["AgentMemory-Request-Id"]
    return [json.loads(line) for line in answer.body.splitlines()]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_only_a_pod_whose_agents_are_named_or_that_is_allowed_to_exports_and_erases(config: Config) -> None:
    asked = (("GET", "/export"), ("POST", "/import"), ("DELETE", ""))
    async with Running(config) as running:
        await running.wait_until_ready()
        await running.turn("a", "kept")
        for method, path in asked:
            answer = await running.send(method, f"/v1/agents/a{path}")
            assert (answer.status, answer.code) == (403, "whole-agent-not-allowed")
            detail = answer.json()["detail"]
            assert "agentmemory.io/agents" in detail and "AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE=true" in detail
        assert len((await running.send("GET", "/v1/agents/a/events")).json()["events"]) == 1
        async with AgentMemory(running.url) as memory:
            with pytest.raises(WholeAgentNotAllowed):
                await memory.agent("a").erase()
            with pytest.raises(WholeAgentNotAllowed):
                await anext(memory.agent("a").export())
    async with Running(replace(config, agents=("a", "team-*"))) as running:
        await running.wait_until_ready()
        for method, path in asked:
            assert (await running.send(method, f"/v1/agents/a{path}")).status == 200
            answer = await running.send(method, f"/v1/agents/b{path}")
            assert (answer.status, answer.code) == (403, "agent-not-allowed")


# --- erasure ---------------------------------------------------------------------------------------------------------


async def test_an_erasure_answers_what_it_took_and_what_is_not_yet_gone(sidecar: Running) -> None:
    receipt = await sidecar.turn("a", "one", "two", session="s", working_memory={"set": {"v": 1}})
    await sidecar.wait("a", receipt["position"])
    key = {"Idempotency-Key": "forget-a"}
    answer = await sidecar.send("DELETE", "/v1/agents/a", headers=key)
    body = answer.json()
    assert (answer.status, body["agent"], body["idempotency_key"], body["repeated"]) == (200, "a", "forget-a", False)
    assert body["redis"] == {"documents": 1, "recent_messages": 2, "journalled_events": 0}
    assert body["postgres"] == {
        "events": 2, "embeddings": 0, "snapshots": 1, "dead_letters": 0, "sessions": 1, "knowledge": 0,
    }  # fmt: skip
    left = " ".join(one["where"] for one in body["not_yet_gone"])
    assert "append-only file" in left and "backups" in left
    assert (await sidecar.send("GET", "/v1/agents/a/events")).json()["events"] == []
    await sidecar.turn("a", "a new life")
    again = await sidecar.send("DELETE", "/v1/agents/a", headers=key)
    assert again.json() == body | {"repeated": True}
    assert len((await sidecar.send("GET", "/v1/agents/a/events")).json()["events"]) == 1


async def test_one_that_is_not_carried_out_in_time_is_accepted_and_asked_for_again(config: Config) -> None:
    slow = replace(config, allow_whole=True, settings=replace(config.settings, max_delay=600.0))
    async with Running(slow, work=False) as idle, Running(slow) as owner:
        await owner.wait_until_ready()
        await idle.turn("a", "before")
        accepted = await idle.send("DELETE", "/v1/agents/a?timeout_seconds=0")
        body = accepted.json()
        assert (accepted.status, set(body)) == (202, {"agent", "position", "idempotency_key", "repeated"})
        assert (await idle.send("GET", "/v1/agents/a/events")).json()["events"] == []
        async with AgentMemory(owner.url) as memory:
            done = await memory.agent("a").erase(idempotency_key=body["idempotency_key"])
        assert (done.done, done.position, done.repeated) == (True, body["position"], True)
        assert done.redis == {"documents": 0, "recent_messages": 1, "journalled_events": 1}


@pytest.mark.parametrize("seconds", ["-1", "61", "soon"])
async def test_how_long_to_wait_has_bounds(sidecar: Running, seconds: str) -> None:
    answer = await sidecar.send("DELETE", f"/v1/agents/a?timeout_seconds={seconds}")
    assert (answer.status, answer.code) == (422, "invalid-request")


# --- export ----------------------------------------------------------------------------------------------------------


async def test_an_export_has_all_that_was_acknowledged_whichever_tier_it_is_in(
    config: Config, stores: LocalStores, settings: Settings
) -> None:
    slow = replace(config, allow_whole=True, settings=replace(config.settings, max_delay=600.0, batch_size=10_000))
    async with Running(slow) as sidecar:
        await sidecar.wait_until_ready()
        first = await sidecar.turn("a", "one", session="s", working_memory={"set": {}})
        await sidecar.wait("a", first["position"])
        await sidecar.turn("b", "of another", session="other")
        document = b'{\r\n  "price": 1.50\n}'
        await sidecar.send("PUT", "/v1/agents/a/working-memory", raw=document)
        payload = b'{"number": 1.50,\n "large": 12345678901234567890}'
        body = b'{"session": "t", "events": [{"type": "tool_call", "payload": ' + payload + b', "at": '
        body += b'"2001-01-01T02:00:00+02:00"}]}'
        last = (await sidecar.send("POST", "/v1/agents/a/turns", raw=body)).json()
        answer = await sidecar.send("GET", "/v1/agents/a/export")
        lines = [json.loads(line) for line in answer.body.splitlines()]
        assert [line["kind"] for line in lines] == [
            "export", "document", "session", "session", "event", "event", "end",
        ]  # fmt: skip
        assert lines[0] == {"kind": "export", "format": 1, "agent": "a", "position": lines[0]["position"]}
        assert document.replace(b"\n", b" ").replace(b"\r", b" ") in answer.body
        assert payload.replace(b"\n", b" ") in answer.body
        assert [line["session"] for line in of_kind(lines, "session")] == ["s", "t"]
        assert [event.get("content") for event in of_kind(lines, "event")] == ["one", None]
        assert lines[-2]["position"] == last["position"] and lines[-2]["at"] == "2001-01-01T00:00:00Z"
        counted = {"sessions": 2, "events": 2, "knowledge": 0, "dead_letters": 0, "unreadable": 0}
        assert lines[-1] == {"kind": "end"} | counted


async def test_what_is_written_while_it_is_under_way_is_not_in_it(make_memory: MakeMemory) -> None:
    async with make_memory() as memory:
        for number in range(40):
            await write(memory, f"before {number}")
        begun = await memory.exporter.begin("a")
        contents: list[str | None] = []
        async for line in memory.exporter.lines(begun):
            await write(memory, f"after {len(contents)}")
            contents.append(getattr(line, "content", None))
        assert [one for one in contents if one] == [f"before {number}" for number in range(40)]


async def write(memory: Memory, content: str, more: str = "") -> Any:
    return await memory.record("a", parse_turn(f'{{"events": [{{"content": "{content}"{more}}}]}}'.encode()))


@pytest.mark.parametrize(
    ("moves", "kinds"),
    [
        ("dies before it is read", ["good", "bad, dead"]),
        ("dies after it is read", ["bad", "good"]),
        ("is replayed", ["good", "bad"]),
        ("is discarded", ["good"]),
    ],
)
async def test_an_event_that_moves_meanwhile_is_in_it_once(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings, monkeypatch: pytest.MonkeyPatch, moves: str,
    kinds: list[str],
) -> None:  # fmt: skip
    """From the journal to the dead letters, or from there into the timeline, behind what was read already."""
    async with make_memory(work=False, max_delay=600.0) as memory:
        await flush(memory)
        await write(memory, "bad", ', "metadata": {"number": 1e200000}')
        if not moves.startswith("dies"):
            await flush(memory)
            await execute(stores, settings, "UPDATE {schema}.dead_letters SET raw = $1", b'{"content": "bad"}')
        await write(memory, "good")
        begun = await memory.exporter.begin("a")
        events_of = Exporter._events_of

        async def move(self: Exporter, *args: Any) -> AsyncIterator[Any]:
            if moves == "dies before it is read":
                await flush(memory)
            async for event in events_of(self, *args):
                yield event
            for letter in await memory.dead_letters.list() if moves.startswith("is") else ():
                act = memory.dead_letters.replay if moves == "is replayed" else memory.dead_letters.discard
                await act("a", letter.id)
            await flush(memory)

        monkeypatch.setattr(Exporter, "_events_of", move)
        found = [line async for line in memory.exporter.lines(begun)]
        assert [
            "bad, dead" if isinstance(line, LetterLine) else getattr(line, "content", "") for line in found
        ] == kinds


async def test_an_export_that_redis_leaves_in_the_middle_is_not_whole(memory: Memory, stores: LocalStores) -> None:
    await write(memory, "one")
    begun = await memory.exporter.begin("a")
    await stores.valkey.kill()
    try:
        with pytest.raises(StoreUnavailable, match="not whole"):
            async for _ in memory.exporter.lines(begun):
                pass
    finally:
        await stores.valkey.start()


async def test_an_export_of_an_agent_that_is_being_erased_is_empty(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory(work=False, max_delay=600.0, batch_size=1) as memory:
        await flush(memory)
        turn = b'{"session": "s", "events": [{"content": "bad", "metadata": {"n": 1e200000}}, {"content": "good"}]}'
        await memory.record("a", parse_turn(turn))
        await flush(memory)
        await memory.record("a", parse_turn(turn))
        await memory.erase("a", seconds=0)
        assert await memory.consolidator.move_batch(memory.consolidator.owned[settings.shard_of("a")])
        begun = await memory.exporter.begin("a")
        assert [line async for line in memory.exporter.lines(begun)] == []


async def test_an_export_that_a_store_cuts_off_is_known_as_such(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Running(replace(config, allow_whole=True)) as sidecar:
        await sidecar.wait_until_ready()
        await sidecar.turn("a", "x" * 200_000)

        async def fail() -> AsyncIterator[Any]:
            for failure in (OSError("the disk is gone"),):
                raise failure
            yield

        rows = Exporter._rows
        monkeypatch.setattr(
            Exporter, "_rows", lambda self, name, *args: fail() if "letters" in name else rows(self, name, *args)
        )
        async with AgentMemory(sidecar.url) as memory:
            with pytest.raises(CutOff):
                async for _ in memory.agent("a").export():
                    pass
        monkeypatch.undo()
        assert (await export(sidecar, "a"))[-1]["events"] == 1


async def test_an_export_without_redis_is_refused(config: Config, stores: LocalStores) -> None:
    async with Running(replace(config, allow_whole=True)) as sidecar:
        await sidecar.wait_until_ready()
        await stores.valkey.kill()
        try:
            answer = await sidecar.send("GET", "/v1/agents/a/export")
            assert answer.status == 503 and answer.code in ("store-unavailable", "shard-closed")
        finally:
            await stores.valkey.start()


# --- there and back --------------------------------------------------------------------------------------------------


async def live(sidecar: Running, stores: LocalStores, settings: Settings) -> None:
    """A little of everything, in both tiers."""
    sent = b'{"session": "day-1", "events": [{"role": "user", "content": "one"}, {"type": "tool_call", "payload": '
    sent += b'{"a": 1.50, "big": 12345678901234567890123}, "metadata": {"z": 1.50, "a": [1e2, true, null, -0.0]}}], '
    sent += b'"working_memory": {"set": {"step": 1.0}}}'
    first = (await sidecar.send("POST", "/v1/agents/a/turns", raw=sent)).json()
    refused = b'{"session": "day-2", "events": [{"content": "bad", "metadata": {"n": 1e200000}}]}'
    assert (await sidecar.send("POST", "/v1/agents/a/turns", raw=refused)).status == 201
    last = await sidecar.turn("a", "three", session="day-2")
    await sidecar.wait("a", last["position"])
    await execute(
        stores, settings,
        "UPDATE {schema}.agent_sessions SET ended_at = now(), metadata = $1 WHERE session_id = 'day-1'",
        '{"why": "done"}',
    )  # fmt: skip
    await sidecar.send("POST", "/v1/agents/a/sessions", {"id": "day-3"})
    fact = {"key": "capital", "topic": "places", "confidence": 0.7, "sources": [first["events"][0]["id"]]}
    for content in ("Bonn", "Berlin"):
        assert (await sidecar.send("POST", "/v1/agents/a/knowledge", fact | {"content": content})).status == 201


def normal(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what a copy has of its own: agent, positions, ids of events, times of acceptance."""
    names = {line["id"]: number for number, line in enumerate(of_kind(lines, "event"))}
    found = []
    for line in lines:
        own = {"agent", "position", "version", "id", "index", "accepted_at", "dead_at"}
        kept = {name: value for name, value in line.items() if name not in own}
        if line["kind"] == "knowledge":
            kept["fact"] = line["fact"] | {"sources": [names[source] for source in line["fact"]["sources"]]}
        if line["kind"] == "dead_letter":
            kept["event"] = {name: value for name, value in line["event"].items() if name != "at"}
        found.append(kept)
    return found


def tool(sidecar: Running, *arguments: str, status: int = 0) -> bytes:
    """What the command line tool writes."""
    environment = os.environ | {"AGENTMEMORY_URL": sidecar.url}
    command = [str(Path(sys.executable).parent / "agentmemory"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


async def test_an_export_imported_again_is_the_same_agent_and_imported_twice_is_there_once(
    config: Config, stores: LocalStores, settings: Settings, tmp_path: Path
) -> None:
    async with Running(replace(config, allow_whole=True), embedder=LettersEmbedder()) as sidecar:
        await sidecar.wait_until_ready()
        await live(sidecar, stores, settings)
        file = tmp_path / "a.jsonl"
        file.write_bytes(await asyncio.to_thread(tool, sidecar, "export", "a"))
        first = json.loads(await asyncio.to_thread(tool, sidecar, "import", str(file), "--agent", "copy", "--json"))
        assert first == {
            "file": str(file), "agent": "copy", "source": "a", "events": 3, "events_already_there": 0, "sessions": 1,
            "knowledge": 2, "dead_letters": 1, "left_out": 0, "document": "written",
        } | {"sessions": first["sessions"]}  # fmt: skip
        assert 1 <= first["sessions"] <= 3
        original, copy = await export(sidecar, "a"), await export(sidecar, "copy")
        assert normal(copy) == normal(original)
        counted = {"sessions": 3, "events": 3, "knowledge": 2, "dead_letters": 1, "unreadable": 0}
        assert of_kind(copy, "end") == [{"kind": "end"} | counted]
        assert [line.get("last_event_at") is None for line in of_kind(copy, "session")] == [False, False, True]
        for versions in (of_kind(original, "knowledge"), of_kind(copy, "knowledge")):
            assert [line["fact"]["content"] for line in versions] == ["Bonn", "Berlin"]
            assert len({line["fact"]["origin"] for line in versions}) == 1
        again = json.loads(await asyncio.to_thread(tool, sidecar, "import", str(file), "--agent", "copy", "--json"))
        assert again == first | {
            "events": 0, "events_already_there": 3, "sessions": 0, "knowledge": 0, "dead_letters": 0,
            "document": "kept",
        }  # fmt: skip
        assert await export(sidecar, "copy") == copy


async def test_a_document_that_is_there_is_kept(sidecar: Running, tmp_path: Path) -> None:
    await sidecar.send("PUT", "/v1/agents/a/working-memory", {"of": "a"})
    await sidecar.send("PUT", "/v1/agents/b/working-memory", {"of": "b"})
    file = tmp_path / "a.jsonl"
    await asyncio.to_thread(tool, sidecar, "export", "a", "-o", str(file))
    result = json.loads(await asyncio.to_thread(tool, sidecar, "import", str(file), "--agent", "b", "--json"))
    assert result["document"] == "kept"
    assert (await sidecar.send("GET", "/v1/agents/b/working-memory")).json() == {"of": "b"}


async def test_another_export_of_the_same_agent_adds_only_what_is_new(
    config: Config, stores: LocalStores, settings: Settings, tmp_path: Path
) -> None:
    """Though the first was read from the journal, and the second from Postgres, which spells metadata its own way."""
    slow = replace(config, allow_whole=True, settings=replace(config.settings, max_delay=600.0))
    async with Running(slow) as sidecar:
        await sidecar.wait_until_ready()
        sent = b'{"events": [{"content": "x", "metadata": {"b": 1e2, "a": {"d": 1.50, "c": -0.0}, "e": 1E-3}}]}'
        receipt = (await sidecar.send("POST", "/v1/agents/a/turns", raw=sent)).json()
        file = tmp_path / "a.jsonl"
        results = []
        for _ in range(2):
            file.write_bytes(await asyncio.to_thread(tool, sidecar, "export", "a"))
            arguments = ("import", str(file), "--agent", "copy", "--json")
            results.append(json.loads(await asyncio.to_thread(tool, sidecar, *arguments)))
            await sidecar.wait("a", receipt["position"])
            await sidecar.turn("a", "new")
        assert [(one["events"], one["events_already_there"]) for one in results] == [(1, 0), (1, 1)]


async def test_what_is_no_whole_export_is_refused_before_anything_is_sent(sidecar: Running, tmp_path: Path) -> None:
    receipt = await sidecar.turn("a", "one")
    await sidecar.wait("a", receipt["position"])
    lines = (await asyncio.to_thread(tool, sidecar, "export", "a")).splitlines(keepends=True)
    file = tmp_path / "a.jsonl"
    for broken, said in (
        (lines[:-1], b"cut off"),
        (lines[:1] + lines[-1:], b"counts other lines"),
        ([*lines[:1], b"{}\n", *lines[1:]], b"line 2"),
    ):
        file.write_bytes(b"".join(broken))
        assert said in await asyncio.to_thread(tool, sidecar, "import", str(file), "--agent", "copy", status=1)
    assert (await export(sidecar, "copy"))[-1]["events"] == 0


async def test_the_tool_erases_after_asking(sidecar: Running, tmp_path: Path) -> None:
    await sidecar.turn("a", "one")
    assert b"Aborted" in await asyncio.to_thread(tool, sidecar, "erase", "a", status=1)
    receipt = json.loads(await asyncio.to_thread(tool, sidecar, "erase", "a", "--yes", "--json"))
    assert receipt["redis"]["recent_messages"] == 1
    assert b"Not yet gone" in await asyncio.to_thread(tool, sidecar, "erase", "a", "--yes")
    file = tmp_path / "there.jsonl"
    file.touch()
    assert b"exists already" in await asyncio.to_thread(tool, sidecar, "export", "a", "-o", str(file), status=1)


async def test_imported_facts_are_found_by_meaning_and_their_versions_follow_each_other(
    make_memory: MakeMemory,
) -> None:
    async with make_memory(work=False, embedder=LettersEmbedder()) as memory:
        await flush(memory)
        for content in ("Bonn", "Berlin"):
            await memory.knowledge.put("a", NewFact(topic="places", content=content, key="capital"))
        begun = await memory.exporter.begin("a")
        facts = [line async for line in memory.exporter.lines(begun) if isinstance(line, Fact)]
        assert (await memory.import_rows("copy", [], facts)).knowledge == 2
        assert (await memory.import_rows("copy", [], facts)).knowledge == 0
        while await parts_of(memory).vectors.embed_batch():
            pass
        for agent in ("a", "copy"):
            found = await memory.knowledge.search(agent, FactQuery(query="Berlin", strategy="semantic"))
            assert ([hit.fact.content for hit in found.hits], found.not_yet_embedded) == (["Berlin"], 0)
        pages = [await memory.knowledge.page(agent, KnowledgeQuery(history=True)) for agent in ("a", "copy")]
        assert pages[0] == pages[1] and len(pages[0].facts) == 2
        old = await memory.knowledge.search(
            "copy", FactQuery(query="x", strategy="semantic", filter=FactFilter(at=pages[0].facts[1].believed_from))
        )
        assert ([hit.fact.content for hit in old.hits], old.not_yet_embedded) == (["Bonn"], 0)


async def test_facts_without_a_provider_wait_for_no_vector(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory(work=False) as memory:
        await flush(memory)
        await memory.knowledge.put("a", NewFact(topic="t", content="x"))
        begun = await memory.exporter.begin("a")
        facts = [line async for line in memory.exporter.lines(begun) if isinstance(line, Fact)]
        assert (await memory.import_rows("copy", [], facts)).knowledge == 1
        assert await execute(stores, settings, "SELECT FROM {schema}.knowledge_queue") == []


# --- import of rows --------------------------------------------------------------------------------------------------

TIMES = '"started_at": "2026-01-01T00:00:00Z", "last_event_at": "2026-01-02T00:00:00Z"'
GOOD = f'{{"kind": "session", "session": "s", {TIMES}}}'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"kind": "event"}', "line 1"),
        (f"{GOOD}\n{GOOD}", "two lines"),
        (f'{GOOD}\n{{"kind": "knowledge", "fact": []}}', "line 2"),
        (f'{GOOD}\n{{"kind": "session", "session": "t", {TIMES}, "metadata": 3}}', "line 2"),
        (f'{GOOD}\n{{"kind": "knowledge", "fact": {{"id": "x"}}}}', "Postgres refuses"),
        (f'{GOOD}\n{{"kind": "knowledge", "fact": {{"topic": "no id"}}}}', "Postgres refuses"),
    ],
)
async def test_a_row_that_cannot_be_imported_keeps_all_of_them_out(sidecar: Running, lines: str, said: str) -> None:
    answer = await sidecar.send("POST", "/v1/agents/a/import", raw=lines.encode())
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert said in answer.json()["detail"]
    assert (await export(sidecar, "a"))[-1]["sessions"] == 0
