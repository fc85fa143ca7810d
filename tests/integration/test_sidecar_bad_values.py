"""Values that no caller should send: each is refused with its reason, and leaves both stores as they were."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio

from agentmemory.local.stores import LocalStores
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from support.memories import admin_postgres, admin_redis, prepare
from support.sidecars import Answer, LettersEmbedder, Running, make_config, write_login

pytestmark = pytest.mark.asyncio(loop_scope="module")
A, B = "/v1/agents/a", "/v1/agents/b"
TURNS, DOCUMENT, RECALL, HYDRATE = f"{A}/turns", f"{A}/working-memory", f"{A}/recall", f"{A}/hydrate"
FACTS, SESSIONS, IMPORT, CHANNEL = f"{A}/knowledge", f"{A}/sessions", f"{A}/import", "/v1/channels/c/messages"
BARRIER = "/v1/consolidation/barrier"
NOBODY = "00000000-0000-8000-8000-000000000000"
INVALID, MISSING = (422, "invalid-request"), 404
HUGE = b"1e999999"
BEFORE_YEAR_1, NO_ZONE = "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00"


@dataclass(frozen=True)
class Case:
    """A request, and how it is refused."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 422
    code: str = "invalid-request"

    async def send(self, sidecar: Running) -> Answer:
        if isinstance(self.body, bytes):
            return await sidecar.send(self.method, self.path, raw=self.body, headers=self.headers)
        return await sidecar.send(self.method, self.path, self.body, headers=self.headers)


def get(path: str, *, status: int = 422, code: str = "invalid-request") -> Case:
    return Case("GET", path, status=status, code=code)


def post(path: str, body: Any, *, status: int = 422, code: str = "invalid-request", **headers: str) -> Case:
    return Case("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()}, status, code)


def patch(*operations: Any, status: int = 422, code: str = "invalid-request") -> Case:
    kind = {"Content-Type": "application/json-patch+json"}
    return Case("PATCH", DOCUMENT, list(operations), kind, status, code)


def add(path: Any, **more: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": 1} | more


def fact(**members: Any) -> bytes:
    whole = {
        "id": NOBODY, "origin": NOBODY, "topic": "t", "content": "x", "confidence": 1, "sources": [],
        "believed_from": "2026-01-01T00:00:00Z", "fingerprint": "\\x00",
    }  # fmt: skip
    return json.dumps({"kind": "knowledge", "fact": whole | members}).encode() + b"\n"


SESSION = b'{"kind": "session", "session": "good", "started_at": "2026-01-01T00:00:00Z"}\n'

GROUPS: dict[str, list[Case]] = {
    "numbers": [
        *(post(RECALL, {"query": "event", "k": k}) for k in (0, -1, 101, 10_000, 1e300, 5.5, "5", None, True)),
        *(post(HYDRATE, {"k": k}) for k in (0, 10_000)),
        post(HYDRATE, b'{"budget": {"tokens": 1e400}}'),
        *(post(f"{FACTS}/search", {"query": "x", "k": k}) for k in (0, 10_000)),
        *(get(f"{A}/events?limit={limit}") for limit in ("0", "1001", "-1", "%2B5", "9" * 30, "null", "")),
        *(get(f"{FACTS}?min_confidence={number}") for number in ("nan", "inf", "-1", "null", "")),
        *(get(f"{CHANNEL}?wait={number}") for number in ("nan", "-1", "31")),
        *(Case("DELETE", f"{A}?timeout_seconds={number}") for number in ("nan", "-1", "61", "null")),
        *(post(FACTS, {"topic": "t", "content": "x", "confidence": number}) for number in (1.1, -0.1, "1", None)),
        # What is a number in JSON, and none in Postgres.
        post(FACTS, b'{"topic": "t", "content": "x", "metadata": {"n": %s}}' % HUGE),
        post(SESSIONS, b'{"id": "s", "metadata": {"n": %s}}' % HUGE),
        post(RECALL, b'{"query": "x", "filter": {"metadata": {"n": %s}}}' % HUGE),
        post(f"{FACTS}/search", b'{"query": "x", "filter": {"metadata": {"n": %s}}}' % HUGE),
        *(get(f"{A}/{of}?metadata=%7B%22n%22:1e999999%7D") for of in ("events", "sessions", "knowledge")),
    ],
    "vectors": [
        *(post(RECALL, {"vector": [1.0] * length}) for length in (0, 1, 25, 27, 100_000)),
        post(RECALL, {"vector": [0.0] * 26}),
        *(post(RECALL, b'{"vector": [%s]}' % b", ".join([number] * 26)) for number in (b"1e999", b"NaN", b"null")),
        post(RECALL, {"vector": [1.0] * 26, "query": "x"}),
        post(RECALL, {}),
        post(RECALL, {"vector": [1.0] * 26, "strategy": "keyword"}),
    ],
    "times": [
        *(get(f"{A}/events?since={at}") for at in (NO_ZONE, "1e10", "0.5", "2026", "null", "", "2026-02-30T00:00:00Z")),
        *(get(f"{A}/events?{name}=0001-01-01T00:00:00%2B14:00") for name in ("since", "until")),
        get("/v1/events?agents=a&since=null"),
        *(get(f"{FACTS}?at={at}") for at in (NO_ZONE, "0.5", "null", "0001-01-01T00:00:00%2B14:00")),
        *(post(RECALL, {"query": "x", "filter": {"since": at}}) for at in (NO_ZONE, 1.5, "", BEFORE_YEAR_1)),
        post(f"{FACTS}/search", {"query": "x", "filter": {"at": BEFORE_YEAR_1}}),
        *(post(TURNS, {"events": [{"content": "x", "at": at}]}) for at in (NO_ZONE, 1_700_000_000, BEFORE_YEAR_1, "")),
        *(post(RECALL, {"query": "x", "recency": {"half_life": age, "weight": 1}}) for age in ("-1d", "0s", "", "7")),
        *(post(RECALL, {"query": "x", "time_zone": zone}) for zone in ("", "../../etc/passwd", "Mars/Olympus")),
    ],
    "ids": [
        *(get(f"{FACTS}/{identity}", status=404, code="no-fact") for identity in ("x", NOBODY, f"{NOBODY}%00", "%FF")),
        Case("PATCH", f"{FACTS}/{NOBODY}", {"content": "x"}, status=404, code="no-fact"),
        Case("DELETE", f"{FACTS}/{NOBODY}", status=404, code="no-fact"),
        Case("DELETE", f"{FACTS}/{NOBODY}?erase=maybe"),
        get(f"{FACTS}/search", status=405, code="method-not-allowed"),
        get(f"{FACTS}?versions_of=x"),
        get(f"{FACTS}?versions_of=null"),
        post(f"/v1/dead-letters/a/{NOBODY}/replay", None, status=404, code="no-dead-letter"),
        Case("DELETE", "/v1/dead-letters/a/x", status=404, code="no-dead-letter"),
        get(f"{SESSIONS}/nobody", status=404, code="no-session"),
        Case("PATCH", f"{SESSIONS}/nobody", {"ended": True}, status=404, code="no-session"),
        Case("PATCH", f"{SESSIONS}/day-1", {"ended": None}),
        *(get(f"{SESSIONS}/{identity}") for identity in ("%00", "s" * 257)),
        *(post(SESSIONS, {"id": identity}) for identity in ("", "s" * 257, 5)),
        get(f"{SESSIONS}?ended=null"),
        get(f"{DOCUMENT}?version=9.9-9", status=404, code="no-snapshot"),
        get(f"{DOCUMENT}?version=0.1-99999999999999999", code="invalid-position"),
        post(BARRIER, {"positions": [{"agent": "nobody", "position": "1.1-1"}], "timeout_seconds": 0}),
        post(BARRIER, {"positions": [{"agent": "a", "position": "0.1-1"}] * 1001}),
        get("/v1/consolidation?agent=a&position=0.9999999999-9999999999999999"),
        get("/v1/consolidation?agent=a"),
        get(f"{CHANNEL}?after=nonsense", code="invalid-position"),
        get(f"{CHANNEL}?after=99999.1-1"),
        get(f"{CHANNEL}?group=g"),
        get(f"{CHANNEL}?redeliver_after=null"),
        post("/v1/channels/c/groups/none/ack", {"positions": ["-"]}),
        Case("DELETE", "/v1/channels/c/groups/%00"),
        post(CHANNEL, {"from": "a/b", "payload": 1}, code="invalid-agent-id"),
    ],
    "paths": [
        get(f"{DOCUMENT}?path="),
        get(f"{DOCUMENT}?path=$" + "[" * 100),
        get(f"{DOCUMENT}?path=" + "$" * 2000),
        get(f"{DOCUMENT}?path=$[99999999999999999999]"),
        get(f"{DOCUMENT}?path=$.%00", code="unstorable-text"),
        get(f"{DOCUMENT}?path=$['%FF']"),
    ],
    "patches": [
        *(patch(add(path)) for path in ("/none/x", "/tasks/9", "/tasks/-1", "/tasks/0x", 5, "/~2", "/count/0")),
        *(patch({"op": op, "path": "/none", "value": 1}) for op in ("replace", "remove", "test", "x", ["add"], None)),
        patch({"op": "remove", "path": "/tasks/-"}),
        patch({"op": "move", "from": "/tasks", "path": "/tasks/0"}),
        patch({"op": "copy", "from": "/none", "path": "/x"}),
        patch({"op": "copy", "path": "/x"}),
        patch({"op": "test", "path": "/count", "value": 99}),
        patch({"op": "replace", "path": "", "value": []}),
        patch({"op": "remove", "path": ""}),
        patch({}),
        patch(1),
        patch(None),
        patch({"op": "add", "path": "/x"}),
        # The first operations of a patch are not kept when a later one fails.
        patch(add("/kept"), {"op": "remove", "path": "/none"}),
        # Each copy is twice as large as the one before, or nests the document deeper.
        patch(*({"op": "copy", "from": "", "path": f"/x{n}"} for n in range(40)), status=413, code="too-large"),
        patch(*[{"op": "copy", "from": "/tasks", "path": "/tasks/0"}] * 40, status=413, code="too-large"),
        patch(*[{"op": "copy", "from": "", "path": "/x"}] * 220),
        post(TURNS, {"events": [{"content": "x"}], "working_memory": {"patch": [{"op": "remove", "path": "/none"}]}}),
        post(TURNS, {"events": [{"content": "x"}], "working_memory": {"set": {}, "delete": True}}),
        post(TURNS, {"events": [{"content": "x"}], "working_memory": {"delete": False}}),
        Case("PATCH", DOCUMENT, {"a": 1}, {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        Case("PUT", DOCUMENT, b'{"a": %s}' % (b"[" * 300 + b"]" * 300)),
        Case("PUT", DOCUMENT, b"null"),
    ],
    "text": [
        *(get(f"{A}/events?{name}=%FF") for name in ("session", "role", "type", "metadata", "cursor")),
        *(get(f"{A}/events?{name}=%ED%A0%80") for name in ("session", "role", "type")),
        *(get(f"{FACTS}?{name}=%ED%A0%80") for name in ("key", "topic", "cursor")),
        get("/v1/channels?cursor=%FF"),
        get("/v1/channels?cursor=%00", code="unstorable-text"),
        get(f"{A}/events?metadata=%7B%22n%22:%22%5Cu0000%22%7D", code="unstorable-text"),
        get(f"{A}/events?metadata=%5B%5D"),
        post(FACTS, b'{"topic": "t", "content": "\\u0000"}', code="unstorable-text"),
        post(FACTS, b'{"topic": "t", "content": "x", "metadata": {"\\u0000": 1}}', code="unstorable-text"),
        post(f"{FACTS}/search", b'{"query": "\\u0000"}', code="unstorable-text"),
        post(SESSIONS, b'{"id": "\\u0000"}', code="unstorable-text"),
        post(CHANNEL, b'{"from": "a", "payload": "\\u0000"}', code="unstorable-text"),
        post(CHANNEL, b'{"from": "a", "payload": "\xff"}'),
        post(RECALL, {"query": "x" * 20_001}),
        post(CHANNEL, {"from": "a", "payload": "x" * 300_000}, status=413, code="too-large"),
    ],
    "imports": [
        post(IMPORT, b'{"kind": "event"}\n'),
        post(IMPORT, fact(id="x")),
        post(IMPORT, fact(topic=None)),
        post(IMPORT, fact(confidence=5)),
        post(IMPORT, fact(confidence="high")),
        post(IMPORT, fact(believed_from="soon")),
        post(IMPORT, b'{"kind": "knowledge", "fact": []}\n'),
        # A good line, and then a bad one: neither is kept.
        post(IMPORT, SESSION + SESSION),
        post(IMPORT, SESSION + fact(id="x")),
        post(IMPORT, SESSION + b"nonsense\n"),
        post(IMPORT, SESSION.replace(b"2026-01-01T00:00:00Z", NO_ZONE.encode())),
        post(IMPORT, SESSION.replace(b"2026-01-01T00:00:00Z", BEFORE_YEAR_1.encode())),
        post(IMPORT, SESSION.replace(b"}\n", b', "metadata": {"n": %s}}\n' % HUGE)),
    ],
    "headers": [
        *(post(TURNS, {"events": [{"content": "x"}]}, Idempotency_Key=key) for key in ("", "k" * 8000, "\t")),
        post(TURNS, {"events": [{"content": "x"}]}, If_Match='"0.0-1"'),
        post(TURNS, {"events": [{"content": "x"}]}, If_Match="garbage", code="invalid-position"),
        post(TURNS, {"events": [{"content": "x"}]}, If_None_Match='"1.1-1"'),
        Case("DELETE", A, headers={"Idempotency-Key": ""}),
        Case("GET", CHANNEL, headers={"Last-Event-ID": "x", "Accept": "text/event-stream"}, code="invalid-position"),
        Case("TRACE", DOCUMENT, status=405, code="method-not-allowed"),
    ],
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def config(stores: LocalStores, tmp_path_factory: pytest.TempPathFactory) -> Config:
    settings = Settings(namespace="test", name="sidecar-bad-values", shards=4, max_delay=0.05, instance="one")
    login = write_login(tmp_path_factory.mktemp("sidecar") / "credentials", await prepare(stores, settings))
    return replace(make_config(stores, settings, login), allow_whole=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sidecar(config: Config) -> AsyncIterator[Running]:
    """With an agent `a` that has two of everything, all of it searchable."""
    async with Running(config, embedder=LettersEmbedder()) as running:
        await running.wait_until_ready()
        position = ""
        for number in range(2):
            events = [{"content": f"event {number}", "metadata": {"n": number}}]
            change = {"merge": {"tasks": [{"n": number}], "count": number}}
            body = {"session": f"day-{number}", "events": events, "working_memory": change}
            position = (await running.send("POST", TURNS, body)).json()["position"]
            await running.send("POST", FACTS, {"topic": "t", "content": f"fact {number}"})
            await running.send("POST", CHANNEL, {"from": "a", "payload": number})
        await running.wait("a", position, "searchable")
        while (await running.send("POST", f"{FACTS}/search", {"query": "fact"})).json()["not_yet_embedded"]:
            await asyncio.sleep(0.01)
        yield running


async def held(stores: LocalStores, settings: Settings) -> tuple[dict[str, bytes], dict[str, str]]:
    """All that both stores hold of the memory, but for leases and marks of time."""
    async with admin_redis(stores) as client:
        keys = [key async for key in client.scan_iter(f"{settings.keys.prefix}*", count=1000)]
        in_redis = {key.decode(): await client.dump(key) for key in keys if not key.endswith((b":state", b":leases"))}
    connection = await admin_postgres(stores)
    try:
        names = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename <> ALL($2) ORDER BY 1",
            settings.keys.schema, ["shards", "sidecars"],
        )  # fmt: skip
        in_postgres = {
            name: await connection.fetchval(
                f"SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {settings.keys.schema}.{name} t"
            )
            for (name,) in names
        }
    finally:
        await connection.close()
    assert in_redis and in_postgres
    return in_redis, in_postgres


@pytest.mark.parametrize("group", GROUPS)
async def test_bad_values_are_refused_and_change_nothing(sidecar: Running, stores: LocalStores, group: str) -> None:
    before = await held(stores, sidecar.config.settings)
    for case in GROUPS[group]:
        answer = await case.send(sidecar)
        shown = f"{case.method} {case.path[:120]} {str(case.body)[:120]} {case.headers}"
        assert (answer.status, answer.code) == (case.status, case.code), f"{shown}: {answer.body[:300]!r}"
    assert await held(stores, sidecar.config.settings) == before


async def test_a_cursor_is_refused_for_another_query(sidecar: Running) -> None:
    lists = {
        f"{A}/events": ("type=x", "order=desc", "session=day-0"),
        FACTS: ("topic=t", "history=true", "at=2026-01-01T00:00:00Z", "min_confidence=0.5"),
        SESSIONS: ("ended=true", "metadata=%7B%7D"),
    }
    cursors = {path: (await sidecar.send("GET", f"{path}?limit=1")).json()["cursor"] for path in lists}
    for path, others in lists.items():
        assert (await sidecar.send("GET", f"{path}?limit=5&cursor={cursors[path]}")).status == 200
        wrong = [f"{path}?{other}&cursor={cursors[path]}" for other in others]
        wrong += [f"{path.replace('/a/', '/b/')}?cursor={cursors[path]}"]
        wrong += [f"{path}?cursor={cursor}" for other, cursor in cursors.items() if other != path]
        for address in wrong:
            answer = await sidecar.send("GET", address)
            assert (answer.status, answer.code) == INVALID, address


async def test_odd_values_that_mean_something_are_served(sidecar: Running) -> None:
    """What looks wrong and is not: the far past and future, unknown sessions, a member that is given twice."""
    for name, at in (("until", "1969-01-01T00:00:00Z"), ("since", "2999-01-01T00:00:00Z")):
        found = await sidecar.send("POST", RECALL, {"query": "event", "filter": {name: at}})
        assert found.status == 200 and found.json()["hits"] == []
        assert (await sidecar.send("GET", f"{A}/events?{name}={at}")).json()["events"] == []
    assert (await sidecar.send("GET", f"{A}/events?session=nobody")).json()["events"] == []
    assert len((await sidecar.send("GET", f"{A}/events?since=1960-01-01T00:00:00Z")).json()["events"]) == 2
    twice = await sidecar.send("POST", RECALL, raw=b'{"query": "nothing", "k": 1, "query": "event 1"}')
    assert [hit["content"] for hit in twice.json()["hits"]] == ["event 1"]
    for number in (1e308, 1e-320):
        assert (await sidecar.send("POST", RECALL, {"vector": [number] * 26})).status == 200


@pytest.mark.parametrize(
    ("name", "value"), [("X-Absurd", "x" * 9000), ("AgentMemory-Client", "x" * 9000), ("X-Line", "a\x0bb")]
)
async def test_what_is_no_http_is_refused_before_anyone_looks(
    sidecar: Running, name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.sidecar.port)
    head = f"GET {A}/events HTTP/1.1\r\nHost: localhost\r\nAgentMemory-Client: t\r\n{name}: {value}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
