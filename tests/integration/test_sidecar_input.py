"""Bad input: each is a typed problem that says what is wrong, and nothing of it is applied."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from agentmemory.local.stores import LocalStores
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from support.sidecars import Running, open_sidecar

DOCUMENT = "/v1/agents/a/working-memory"
TURNS = "/v1/agents/a/turns"
RECALL = "/v1/agents/a/recall"
HYDRATE = "/v1/agents/a/hydrate"
BARRIER = "/v1/consolidation/barrier"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sidecar(stores: LocalStores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One for the whole module: what is refused leaves no trace."""
    settings = Settings(namespace="test", name="sidecar-input", shards=4, max_delay=0.05, instance="one")
    async with open_sidecar(stores, settings, tmp_path_factory.mktemp("sidecar")) as running:
        yield running


@pytest.fixture
def agent() -> str:
    """One that no other test has named."""
    return f"agent-{uuid4().hex}"


async def assert_nothing_happened(sidecar: Running) -> None:
    assert (await sidecar.send("GET", DOCUMENT)).code == "no-working-memory"
    assert (await sidecar.send("GET", "/v1/agents/a/events")).json()["events"] == []


NOT_JSON = {
    "empty": b"",
    "cut off": b'{"events": [',
    "trailing": b'{"events": []} {}',
    "NaN": b'{"events": [{"payload": NaN}], "x": NaN}',
    "infinity": b'{"events": [{"payload": -Infinity}]}',
    "single quotes": b"{'events': []}",
    "not UTF-8": b'{"events": [{"content": "\xff\xfe"}]}',
    "UTF-16": '{"events": []}'.encode("utf-16"),
    "not UTF-8 in a payload": b'{"events": [{"payload": "\xff"}]}',
    "nested without end": b'{"events": [{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "nested without end, with a NUL": b'{"events": [{"payload": ["\\u0000", ' + b"[" * 900 + b"]" * 900 + b"]}]}",
}


@pytest.mark.parametrize("name", NOT_JSON)
async def test_a_body_that_is_not_json_is_refused(sidecar: Running, name: str) -> None:
    for method, path in (("POST", TURNS), ("PUT", DOCUMENT), ("PATCH", DOCUMENT), ("POST", RECALL), ("POST", BARRIER)):
        for kind in (None, "application/json-patch+json"):
            headers = {"Content-Type": kind} if kind else {}
            answer = await sidecar.send(method, path, raw=NOT_JSON[name], headers=headers)
            assert answer.status == 422, (path, answer.body)
            assert answer.code in ("invalid-request", "unstorable-text")
    await assert_nothing_happened(sidecar)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_packed_as_it_says_is_refused(sidecar: Running, encoding: str) -> None:
    answer = await sidecar.send("POST", TURNS, raw=b"hello", headers={"Content-Encoding": encoding})
    assert (answer.status, answer.code) == (422, "invalid-request")
    await assert_nothing_happened(sidecar)


NOT_A_TURN: dict[str, Any] = {
    "an array": [],
    "a string": "x",
    "nothing in it": {},
    "no events": {"events": []},
    "an unknown member": {"events": [{"content": "x"}], "evnets": []},
    "an unknown member of an event": {"events": [{"content": "x", "text": "y"}]},
    "an event of nothing": {"events": [{"type": "message"}]},
    "content that is no text": {"events": [{"content": 5}]},
    "a type that is empty": {"events": [{"type": "", "content": "x"}]},
    "a type that is too long": {"events": [{"type": "x" * 65, "content": "x"}]},
    "a time without a zone": {"events": [{"content": "x", "at": "2026-11-22T12:00:00"}]},
    "a time that is none": {"events": [{"content": "x", "at": "yesterday"}]},
    "metadata that is no object": {"events": [{"content": "x", "metadata": [1]}]},
    "an empty session": {"session": "", "events": [{"content": "x"}]},
    "a long session": {"session": "s" * 257, "events": [{"content": "x"}]},
    "too many events": {"events": [{"content": "x"}] * 1001},
    "two changes": {"working_memory": {"set": {}, "merge": {}}},
    "no change": {"events": [{"content": "x"}], "working_memory": {}},
    "a document that is no object": {"working_memory": {"set": [1]}},
    "a merge that leaves no object": {"working_memory": {"merge": 5}},
    "a patch that does not apply": {"working_memory": {"patch": [{"op": "remove", "path": "/none"}]}},
    "a patch that is none": {"working_memory": {"patch": {"op": "remove"}}},
}


@pytest.mark.parametrize("name", NOT_A_TURN)
async def test_json_that_is_no_turn_is_refused(sidecar: Running, name: str) -> None:
    answer = await sidecar.send("POST", TURNS, NOT_A_TURN[name])
    assert (answer.status, answer.code) == (422, "invalid-request"), answer.body
    await assert_nothing_happened(sidecar)


async def test_the_place_of_a_mistake_is_named(sidecar: Running) -> None:
    answer = await sidecar.send("POST", TURNS, {"events": [{"content": "x"}, {"content": 5}]})
    assert "$.events[1].content" in answer.json()["detail"] or "$.events[...].content" in answer.json()["detail"]


UNSTORABLE = (r"\u0000", r"a\u0000b", r"\ud800", r"\udfff", r"\ud83dx", r"\ude00\ud83d")


@pytest.mark.parametrize("text", UNSTORABLE)
async def test_text_that_postgres_cannot_store_is_refused_wherever_it_stands(sidecar: Running, text: str) -> None:
    string = f'"{text}"'
    bodies = (
        ("POST", TURNS, f'{{"events": [{{"content": {string}}}]}}'),
        ("POST", TURNS, f'{{"events": [{{"payload": {{"deep": [{string}]}}}}]}}'),
        ("POST", TURNS, f'{{"events": [{{"payload": {{{string}: 1}}}}]}}'),
        ("POST", TURNS, f'{{"events": [{{"content": "x", "metadata": {{"a": {string}}}}}]}}'),
        ("POST", TURNS, f'{{"events": [{{"content": "x", "type": {string}}}]}}'),
        ("POST", TURNS, f'{{"events": [{{"content": "x", "role": {string}}}]}}'),
        ("POST", TURNS, f'{{"session": {string}, "events": [{{"content": "x"}}]}}'),
        ("POST", TURNS, f'{{"working_memory": {{"set": {{"a": {string}}}}}}}'),
        ("PUT", DOCUMENT, f'{{"a": {string}}}'),
        ("PATCH", DOCUMENT, f'{{"a": {string}}}'),
        ("POST", RECALL, f'{{"query": {string}}}'),
        ("POST", HYDRATE, f'{{"query": {string}}}'),
    )
    for method, path, body in bodies:
        answer = await sidecar.send(method, path, raw=body.encode())
        # A decoder may refuse half a pair before anyone else can.
        assert answer.status == 422 and answer.code in ("unstorable-text", "invalid-request"), body
    for path in ("/v1/agents/a/events?session=%00", "/v1/agents/a/events?type=a%00b"):
        assert (await sidecar.send("GET", path)).code == "unstorable-text"
    await assert_nothing_happened(sidecar)


async def test_what_looks_like_such_text_and_is_not_is_stored(sidecar: Running, agent: str) -> None:
    body = rb'{"events": [{"content": "\\u0000 \\ud800 \ud83d\ude00 \u0001"}]}'
    answer = await sidecar.send("POST", f"/v1/agents/{agent}/turns", raw=body)
    assert answer.status == 201
    await sidecar.wait(agent, answer.json()["position"])
    [event] = (await sidecar.send("GET", f"/v1/agents/{agent}/events")).json()["events"]
    assert event["content"] == "\\u0000 \\ud800 \N{GRINNING FACE} \x01"


AGENTS = {
    "empty": "",
    "too long": "a" * 129,
    "very long": "a" * 5000,
    "a slash": "a%2Fb",
    "braces": "%7B%7D",
    "bare braces": "{}",
    "a newline": "a%0Ab",
    "a trailing newline": "a%0A",
    "NUL": "a%00",
    "a space": "a%20b",
    "an umlaut": "%C3%A4gent",
    "no UTF-8": "%FF",
    "an Arabic digit": "a%D9%A1",
    "a leading dot": ".a",
    "dots": "%2E%2E",
    "a star": "a*",
    "a comma": "a,b",
    "a percent sign": "%25",
}


@pytest.mark.parametrize("name", AGENTS)
async def test_an_agent_id_that_is_none_is_refused(sidecar: Running, name: str) -> None:
    for method, rest in (("GET", "working-memory"), ("POST", "turns"), ("GET", "events"), ("POST", "hydrate")):
        body = {"events": [{"content": "x"}]} if method == "POST" else None
        answer = await sidecar.send(method, f"/v1/agents/{AGENTS[name]}/{rest}", body)
        assert (answer.status, answer.code) == (422, "invalid-agent-id"), rest
    for body in (
        {"positions": [{"agent": "a/b", "position": "1.1-1"}]},
        {"positions": [{"agent": "", "position": ""}]},
    ):
        assert (await sidecar.send("POST", BARRIER, body)).code == "invalid-agent-id"


async def test_every_character_that_an_agent_id_may_have_is_served(sidecar: Running) -> None:
    agent = "aZ09._:@+~=-"
    for path in (f"/v1/agents/{agent}", "/v1/agents/aZ09._%3A%40%2B~%3D-"):
        assert (await sidecar.send("POST", f"{path}/turns", {"events": [{"content": "x"}]})).status == 201
    events = (await sidecar.send("GET", f"/v1/agents/{agent}/events")).json()["events"]
    assert len(events) == 2


async def test_a_body_over_the_limit_is_refused(config: Config) -> None:
    async with Running(replace(config, max_body=4096)) as sidecar:
        large = json.dumps({"events": [{"content": "x" * 4096}]}).encode()
        for method, path in (("POST", TURNS), ("PUT", DOCUMENT), ("PATCH", DOCUMENT), ("POST", RECALL)):
            answer = await sidecar.send(method, path, raw=large)
            assert (answer.status, answer.code) == (413, "too-large")
        packed = {"Content-Encoding": "deflate"}
        bomb = zlib.compress(large * 100)
        assert len(bomb) < 4096
        answer = await sidecar.send("POST", TURNS, raw=bomb, headers=packed)
        assert (answer.status, answer.code) == (413, "too-large")
        assert (await sidecar.send("POST", TURNS, {"events": [{"content": "x" * 3000}]})).status == 201


async def test_a_document_over_its_limit_is_refused_however_it_grew(config: Config) -> None:
    small = replace(config, settings=replace(config.settings, max_document_size=100))
    async with Running(small) as sidecar:
        while (await sidecar.send("PUT", DOCUMENT, {"a": "x" * 50})).status != 200:
            await asyncio.sleep(0.01)
        grown = {"b": "y" * 50}
        for method, path, body in (
            ("PUT", DOCUMENT, {"a": "x" * 100}),
            ("PATCH", DOCUMENT, grown),
            ("POST", TURNS, {"events": [{"content": "x"}], "working_memory": {"merge": grown}}),
        ):
            answer = await sidecar.send(method, path, body)
            assert (answer.status, answer.code) == (413, "too-large")
        assert (await sidecar.send("GET", DOCUMENT)).json() == {"a": "x" * 50}
        assert (await sidecar.send("GET", "/v1/agents/a/events")).json()["events"] == []


async def test_a_key_that_is_used_for_another_body_is_refused(sidecar: Running, agent: str) -> None:
    base = f"/v1/agents/{agent}"
    key = {"Idempotency-Key": "k"}
    assert (await sidecar.send("POST", f"{base}/turns", {"events": [{"content": "one"}]}, headers=key)).status == 201
    for method, path, body in (
        ("POST", f"{base}/turns", {"events": [{"content": "two"}]}),
        ("PUT", f"{base}/working-memory", {}),
        ("PATCH", f"{base}/working-memory", {}),
    ):
        answer = await sidecar.send(method, path, body, headers=key)
        assert (answer.status, answer.code) == (422, "idempotency-key-reused")
    assert (await sidecar.send("GET", f"{base}/working-memory")).code == "no-working-memory"
    assert len((await sidecar.send("GET", f"{base}/events")).json()["events"]) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "k\u00e9", "a\tb"])
async def test_a_key_that_is_none_is_refused(sidecar: Running, key: str) -> None:
    answer = await sidecar.send("POST", TURNS, {"events": [{"content": "x"}]}, headers={"Idempotency-Key": key})
    assert (answer.status, answer.code) == (422, "invalid-request")
    await assert_nothing_happened(sidecar)


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "nonsense"},
        {"If-Match": '"absent"'},
        {"If-Match": "*"},
        {"If-Match": ""},
        {"If-Match": 'W/"1.1-1"'},
        {"If-Match": '"1.1-1", "1.1-2"'},
        {"If-Match": '"99999.1-1"'},
        {"If-None-Match": '"1.1-1"'},
        {"If-Match": '"1.1-1"', "If-None-Match": "*"},
    ],
)
async def test_a_version_that_is_none_is_refused(sidecar: Running, headers: dict[str, str]) -> None:
    for method, path, body in (("PUT", DOCUMENT, {}), ("POST", TURNS, {"events": [{"content": "x"}]})):
        answer = await sidecar.send(method, path, body, headers=headers)
        assert (answer.status, answer.code) in ((422, "invalid-request"), (422, "invalid-position"))
    await assert_nothing_happened(sidecar)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=ten",
        "limit=1&limit=2",
        "order=up",
        "since=yesterday",
        "since=2026-11-22T12:00:00",
        "cursor=nonsense",
        "cursor=1.1-1:99999999999999999999",
        "unknown=1",
    ],
)
async def test_query_parameters_that_are_none_are_refused(sidecar: Running, query: str) -> None:
    answer = await sidecar.send("GET", f"/v1/agents/a/events?{query}")
    assert answer.status == 422 and answer.code in ("invalid-request", "invalid-position")


async def test_routes_without_parameters_take_none(sidecar: Running) -> None:
    for method, path, body in (
        ("PUT", DOCUMENT, {}),
        ("POST", TURNS, {"events": [{"content": "x"}]}),
        ("POST", HYDRATE, {}),
    ):
        assert (await sidecar.send(method, f"{path}?if_match=1.1-1", body)).status == 422
    await assert_nothing_happened(sidecar)


NUL_IN_A_CURSOR = base64.urlsafe_b64encode(
    b'["2026-11-22T12:00:00Z","a\\u0000","00000000-0000-0000-0000-000000000000"]'
).decode()


@pytest.mark.parametrize("cursor", ["x", "bm9uc2Vuc2U=", NUL_IN_A_CURSOR, "%00"])
async def test_a_cursor_of_no_page_of_dead_letters_is_refused(sidecar: Running, cursor: str) -> None:
    assert (await sidecar.send("GET", f"/v1/dead-letters?cursor={cursor}")).status == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RECALL, {"query": "x", "k": 0}),
        (RECALL, {"query": "x", "k": 101}),
        (RECALL, {"query": "x", "min_score": 2}),
        (RECALL, {"query": "x", "include": ["sessions"]}),
        (RECALL, {"query": "x", "filter": {"metadata": [1]}}),
        (RECALL, {"query": "x", "filter": {"since": "today"}}),
        (RECALL, {"vector": ["a"]}),
        (HYDRATE, {"budget": {"tokens": 0}}),
        (HYDRATE, {"budget": 5}),
        (HYDRATE, {"restore": "yes"}),
        (BARRIER, {}),
        (BARRIER, {"positions": []}),
        (BARRIER, {"positions": [{"agent": "a", "position": "x"}]}),
        (BARRIER, {"positions": [{"agent": "a", "position": "99999.1-1"}]}),
        (BARRIER, {"positions": [{"agent": "a", "position": "1.1-1"}], "until": "pending"}),
        (BARRIER, {"positions": [{"agent": "a", "position": "1.1-1"}], "timeout_seconds": 61}),
        (BARRIER, {"positions": [{"agent": "a", "position": "1.1-1"}], "timeout_seconds": -1}),
    ],
)
async def test_questions_that_break_a_rule_are_refused(sidecar: Running, path: str, body: Any) -> None:
    answer = await sidecar.send("POST", path, body)
    assert answer.status == 422 and answer.code in ("invalid-request", "invalid-position")


async def test_a_client_that_goes_away_leaves_nothing_behind(
    sidecar: Running, agent: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = (
        b"POST /v1/agents/%s/turns HTTP/1.1\r\nHost: localhost\r\nAgentMemory-Client: t\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    body = b'{"events": [{"content": "half"}]}'
    tasks = len(asyncio.all_tasks())
    for sent in (head % (agent.encode(), 1000) + body, head % (agent.encode(), len(body)) + body):
        _, writer = await asyncio.open_connection("127.0.0.1", sidecar.sidecar.port)
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0)
        writer.transport.abort()
    while len(asyncio.all_tasks()) > tasks:
        await asyncio.sleep(0.01)
    # The first never arrived whole; the second may have been read before its client was gone, and then counts.
    events = (await sidecar.send("GET", f"/v1/agents/{agent}/events")).json()["events"]
    assert [event["content"] for event in events] in ([], ["half"])
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_turn_in_progress_is_completed_when_its_client_goes_away(
    sidecar: Running, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, begun, go_on, done = sidecar.memory.record, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        await go_on.wait()
        receipt = await record(*args, **kwargs)
        done.set()
        return receipt

    monkeypatch.setattr(sidecar.memory, "record", slow)
    _, writer = await asyncio.open_connection("127.0.0.1", sidecar.sidecar.port)
    body = b'{"events": [{"content": "whole"}]}'
    writer.write(
        b"POST /v1/agents/%s/turns HTTP/1.1\r\nHost: localhost\r\nAgentMemory-Client: t\r\nContent-Length: %d\r\n\r\n%s"
        % (agent.encode(), len(body), body)
    )
    await begun.wait()
    writer.transport.abort()
    await asyncio.sleep(0.05)
    go_on.set()
    await done.wait()
    [event] = (await sidecar.send("GET", f"/v1/agents/{agent}/events")).json()["events"]
    assert event["content"] == "whole"
