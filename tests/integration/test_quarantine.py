"""A document that cannot be read is set aside, byte for byte; the agent goes on, and nothing of others waits for it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw

from agentmemory.client import AgentMemory
from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.errors import (
    DocumentExpired,
    InvalidInput,
    NoDocument,
    StoreUnavailable,
    UnreadableDocument,
)
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.journal import ABSENT
from agentmemory_engine.memory import Memory
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import DocumentChange, Turn, parse_turn
from agentmemory_sidecar.config import Config
from support.memories import MakeMemory, admin_postgres, admin_redis, parts_of
from support.sidecars import Running

FOREIGN = [
    b"foreign \xff bytes",
    b"\x00",
    b"1-1 w beef 00 1x\n{}",
    b'{"json": "but no header"}',
    b"9" * 40 + b"-1 w aa bb 0\n{}",
]
BODIES = [b"[1]", b'{"cut": ', b'{"a": "\xff"}', b"", b'{"a": "\\u0000"}', b"null"]


@pytest.fixture
async def redis(stores: LocalStores) -> AsyncIterator[Any]:
    async with admin_redis(stores) as client:
        yield client


def key_of(settings: Settings, agent: str = "a") -> str:
    return settings.keys.document(settings.shard_of(agent), agent)


async def write(memory: Memory, document: dict[str, Any], agent: str = "a") -> str:
    change = DocumentChange(set=Raw(json.dumps(document).encode()))
    receipt = await memory.record(agent, Turn(working_memory=change))
    await memory.wait([(agent, receipt.position)], "durable", 10.0)
    return str(receipt.position.entry)


async def spoil(redis: Any, settings: Settings, body: bytes) -> None:
    """Have the header stay, and what follows it be these bytes."""
    header, _, _ = (await redis.get(key_of(settings))).partition(b"\n")
    await redis.set(key_of(settings), header + b"\n" + body)


async def letters(memory: Memory) -> list[DeadLetter]:
    return await memory.dead_letters.list()


@pytest.mark.parametrize("body", BODIES)
async def test_a_document_that_is_no_object_is_set_aside_and_the_last_snapshot_restored(
    memory: Memory, settings: Settings, redis: Any, body: bytes
) -> None:
    version = await write(memory, {"step": 1})
    await spoil(redis, settings, body)
    for change in (DocumentChange(merge=Raw(b'{"a": 1}')), DocumentChange(patch=Raw(b"[]"))):
        with pytest.raises(UnreadableDocument, match="Hydrate sets it aside"):
            await memory.record("a", Turn(working_memory=change))
    with pytest.raises(UnreadableDocument):
        await memory.read_document("a")
    woken = await memory.hydrate("a", HydrateQuery(restore=True))
    assert (woken.working_memory, woken.cold_start, woken.degraded) == (b'{"step": 1}', "unreadable", [])
    (letter,) = await letters(memory)
    assert woken.quarantined == [letter]
    assert (letter.kind, letter.raw, str(letter.position.entry)) == ("document", body, version)
    assert (await memory.read_document("a")).body == b'{"step": 1}'
    status = await memory.status()
    assert (status.quarantined, status.dead_letters) == (1, 0)
    again = await memory.hydrate("a", HydrateQuery(restore=True))
    assert (again.cold_start, again.quarantined, len(await letters(memory))) == (None, [], 1)


@pytest.mark.parametrize("value", FOREIGN)
async def test_what_another_program_has_put_there_is_kept_whole(
    memory: Memory, settings: Settings, redis: Any, value: bytes
) -> None:
    await redis.set(key_of(settings), value)
    with pytest.raises(UnreadableDocument):
        await memory.read_document("a")
    woken = await memory.hydrate("a", HydrateQuery())
    assert (woken.working_memory, woken.cold_start) == (None, "unreadable")
    assert [letter.raw for letter in woken.quarantined] == [value]
    with pytest.raises(NoDocument):
        await memory.read_document("a")
    await memory.record("a", Turn(working_memory=DocumentChange(merge=Raw(b'{"new": 1}'))))
    assert (await memory.read_document("a")).body == b'{"new":1}'


async def test_what_is_no_string_is_kept_as_redis_dumps_it(memory: Memory, settings: Settings, redis: Any) -> None:
    await redis.hset(key_of(settings), mapping={"a": "1"})
    dump = await redis.dump(key_of(settings))
    with pytest.raises(UnreadableDocument, match="no string"):
        await memory.read_document("a")
    woken = await memory.hydrate("a", HydrateQuery())
    assert [letter.raw for letter in woken.quarantined] == [dump]
    assert await redis.exists(key_of(settings)) == 0


@pytest.mark.parametrize("change", [DocumentChange(set=Raw(b'{"new":1}')), DocumentChange(delete=True)])
async def test_a_write_over_foreign_bytes_keeps_them_first(
    memory: Memory, settings: Settings, redis: Any, change: DocumentChange
) -> None:
    await redis.set(key_of(settings), b"foreign")
    receipt = await memory.record("a", Turn(working_memory=change), if_match=ABSENT)
    assert not receipt.repeated
    assert [letter.raw for letter in await letters(memory)] == [b"foreign"]
    stored = await redis.get(key_of(settings))
    assert stored.startswith(str(receipt.position.entry).encode())


@pytest.mark.parametrize("kind", ["string", "hash"])
async def test_consolidation_and_an_opening_pass_what_is_foreign(
    make_memory: MakeMemory, settings: Settings, redis: Any, kind: str
) -> None:
    async def put() -> None:
        await redis.delete(key_of(settings))
        await (redis.set(key_of(settings), b"for eign") if kind == "string" else redis.hset(key_of(settings), "f", "v"))

    async with make_memory() as memory:
        await write(memory, {"step": 1})
        await put()
        receipt = await memory.record("a", parse_turn(b'{"events": [{"content": "x"}]}'))
        await memory.wait([("a", receipt.position)], "durable", 10.0)
        await write(memory, {"b": 1}, "b")
        assert await letters(memory) == []
        await redis.hset(settings.keys.state(settings.shard_of("a")), "run", "another")
        receipt = await memory.record("b", parse_turn(b'{"events": [{"content": "x"}]}'))
        await memory.wait([("b", receipt.position)], "durable", 20.0)
        assert await redis.exists(key_of(settings)) == 1
        woken = await memory.hydrate("a", HydrateQuery(restore=True))
        assert (woken.cold_start, woken.working_memory) == ("unreadable", b'{"step": 1}')


async def test_snapshots_that_cannot_be_read_are_passed_over(
    memory: Memory, stores: LocalStores, settings: Settings, redis: Any
) -> None:
    for step in (1, 2, 3):
        await write(memory, {"step": step})
    connection = await admin_postgres(stores)
    await connection.execute(
        f"UPDATE \"{settings.keys.schema}\".working_snapshots SET body = convert_to('[' || sequence || ']', 'UTF8')"
        " WHERE body <> convert_to('{\"step\": 1}', 'UTF8')"
    )
    await connection.close()
    await redis.delete(key_of(settings))
    with pytest.raises(UnreadableDocument):
        await memory.read_document("a")
    woken = await memory.hydrate("a", HydrateQuery())
    assert (woken.cold_start, woken.working_memory, len(woken.quarantined)) == ("unreadable", None, 2)
    assert all(letter.raw == f"[{letter.position.entry.sequence}]".encode() for letter in woken.quarantined)
    with pytest.raises(DocumentExpired):
        await memory.read_document("a")
    assert (await memory.hydrate("a", HydrateQuery(restore=True))).working_memory == b'{"step": 1}'


@pytest.mark.parametrize("mode", ["Postgres"], indirect=True)
@pytest.mark.parametrize("restore", [True, False])
async def test_without_redis_an_earlier_snapshot_comes_back_on_request_only(
    memory: Memory, stores: LocalStores, settings: Settings, restore: bool
) -> None:
    for step in (1, 2):
        await memory.record("a", Turn(working_memory=DocumentChange(set=Raw(b'{"step": %d}' % step))))
    connection = await admin_postgres(stores)
    table = f'"{settings.keys.schema}".working_snapshots'
    await connection.execute(f"UPDATE {table} SET body = $1 WHERE body = $2", b"[2]", b'{"step": 2}')
    await connection.close()
    with pytest.raises(UnreadableDocument):
        await memory.read_document("a")
    with pytest.raises(UnreadableDocument):
        await memory.record("a", Turn(working_memory=DocumentChange(merge=Raw(b"{}"))))
    woken = await memory.hydrate("a", HydrateQuery(restore=restore))
    assert (woken.cold_start, woken.working_memory) == ("unreadable", b'{"step": 1}' if restore else None)
    assert [letter.raw for letter in woken.quarantined] == [b"[2]"] == [letter.raw for letter in await letters(memory)]
    if not restore:
        with pytest.raises(DocumentExpired):
            await memory.read_document("a")
    await memory.record("a", Turn(working_memory=DocumentChange(merge=Raw(b'{"new": 1}'))))
    assert (await memory.read_document("a")).body == (b'{"step":1,"new":1}' if restore else b'{"new":1}')
    await memory.erase("a")
    assert await letters(memory) == []


async def test_whatever_happens_in_between_it_is_kept_once(
    memory: Memory, settings: Settings, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(memory, {"step": 1})
    await spoil(redis, settings, b"[1]")

    async def down(*_: object) -> None:
        raise StoreUnavailable("redis", "away")

    with monkeypatch.context() as patched:
        patched.setattr(parts_of(memory).journal, "set_aside", down)
        woken = await memory.hydrate("a", HydrateQuery(restore=True))
    assert (woken.cold_start, woken.degraded, woken.working_memory) == ("unreadable", ["working_memory"], None)
    assert await redis.exists(key_of(settings)) == 1
    several = await asyncio.gather(*(memory.hydrate("a", HydrateQuery(restore=True)) for _ in range(4)))
    assert {one.working_memory for one in several} == {b'{"step": 1}'}
    assert [letter.raw for letter in await letters(memory)] == [b"[1]"]


async def test_a_document_that_came_meanwhile_is_not_taken_away(
    memory: Memory, settings: Settings, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.set(key_of(settings), b"foreign")
    set_aside = parts_of(memory).journal.set_aside

    async def late(agent: str, value: bytes) -> None:
        await redis.delete(key_of(settings))
        await memory.record("a", Turn(working_memory=DocumentChange(set=Raw(b'{"new":1}'))))
        await set_aside(agent, value)

    monkeypatch.setattr(parts_of(memory).journal, "set_aside", late)
    await memory.hydrate("a", HydrateQuery())
    assert (await memory.read_document("a")).body == b'{"new":1}'


async def test_an_erasure_takes_it_and_what_comes_after_is_kept(memory: Memory, settings: Settings, redis: Any) -> None:
    await write(memory, {"step": 1})
    await spoil(redis, settings, b"[1]")
    await memory.hydrate("a", HydrateQuery())
    receipt = await memory.erase("a")
    assert receipt.erased is not None and receipt.erased.dead_letters == 1
    assert await letters(memory) == []
    await redis.set(key_of(settings), b"foreign")
    assert len((await memory.hydrate("a", HydrateQuery())).quarantined) == 1
    assert [letter.raw for letter in await letters(memory)] == [b"foreign"]
    await memory.erase("a")
    assert await letters(memory) == []


async def test_a_store_that_is_down_is_degraded_and_no_cold_start(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(memory, {"step": 1})

    async def down(*_: object) -> None:
        raise StoreUnavailable("redis", "away")

    monkeypatch.setattr(memory.parts.working, "read", down)
    woken = await memory.hydrate("a", HydrateQuery(restore=True))
    assert (woken.cold_start, woken.degraded, woken.quarantined) == (None, ["working_memory"], [])


async def test_it_is_not_replayed(memory: Memory, settings: Settings, redis: Any) -> None:
    await redis.set(key_of(settings), b"[]")
    (letter,) = (await memory.hydrate("a", HydrateQuery())).quarantined
    with pytest.raises(InvalidInput, match="a document"):
        await memory.dead_letters.replay("a", letter.id)
    assert await letters(memory) == [letter]


async def test_over_http(config: Config, settings: Settings, redis: Any) -> None:
    async with Running(replace(config, allow_whole=True)) as sidecar:
        await sidecar.wait_until_ready()
        await check_over_http(sidecar, settings, redis)


async def check_over_http(sidecar: Running, settings: Settings, redis: Any) -> None:
    base = "/v1/agents/a/working-memory"
    await redis.set(key_of(settings), b"foreign \xff")
    for method, body in (("GET", None), ("PATCH", {"a": 1})):
        refused = await sidecar.send(method, base, body)
        assert (refused.status, refused.code, refused.json()["version"]) == (409, "unreadable-document", None)
    woken = (await sidecar.send("POST", "/v1/agents/a/hydrate", {})).json()
    ((one,), cold_start) = woken["quarantined"], woken["cold_start"]
    assert (cold_start, one["bytes"]) == ("unreadable", 9)
    assert (await sidecar.send("GET", "/v1/consolidation")).json()["quarantined"] == 1
    assert b"agentmemory_quarantined_documents 1.0" in (await sidecar.ops("/metrics")).body
    async with AgentMemory(sidecar.url) as client:
        (letter,) = [one async for one in client.dead_letters()]
        assert (letter.kind, letter.id) == ("document", one["id"])
        assert await client.dead_letter_bytes("a", letter.id) == b"foreign \xff"
    exported = [json.loads(line) for line in (await sidecar.send("GET", "/v1/agents/a/export")).body.splitlines()]
    kept = [base64.b64decode(line["base64"]) for line in exported if line["kind"] == "unreadable_document"]
    assert kept == [b"foreign \xff"] and exported[-1]["unreadable"] == 1
    raw = f"/v1/dead-letters/a/{one['id']}"
    assert (await sidecar.send("POST", f"{raw}/replay")).status == 422
    assert (await sidecar.send("DELETE", raw)).status == 200
    assert (await sidecar.send("GET", f"{raw}/raw")).code == "no-dead-letter"
    await redis.set(key_of(settings), b"foreign")
    assert (await sidecar.send("PUT", base, {"new": 1})).status == 200
    await redis.set(key_of(settings), b"foreign again")
    assert (await sidecar.send("DELETE", base)).status == 200
    assert (await sidecar.send("GET", "/v1/consolidation")).json()["quarantined"] == 2
