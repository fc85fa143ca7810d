"""The HTTP API as clients see it: bytes, versions, keys, pages, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_sidecar.config import Config
from support.memories import admin_redis
from support.sidecars import LettersEmbedder, Running

DOCUMENT = "/v1/agents/a/working-memory"
TURNS = "/v1/agents/a/turns"


def quoted(version: str) -> str:
    return f'"{version}"'


async def test_a_document_comes_back_as_the_bytes_that_were_sent(sidecar: Running) -> None:
    sent = b' { "price": 1.50, "big": 12345678901234567890, "a": "\xc3\xa9\\u00e9" }\n'
    put = await sidecar.send("PUT", DOCUMENT, raw=sent)
    got = await sidecar.send("GET", DOCUMENT)
    assert put.status == 200 and put.json()["repeated"] is False
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, sent, "application/json")
    assert got.headers["ETag"] == quoted(put.json()["version"])


async def test_a_reader_that_has_the_version_is_told_so(sidecar: Running) -> None:
    version = (await sidecar.send("PUT", DOCUMENT, {})).json()["version"]
    for tags in (quoted(version), f'"1.1-1", W/{quoted(version)}', "*"):
        answer = await sidecar.send("GET", DOCUMENT, headers={"If-None-Match": tags})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", quoted(version))
    assert (await sidecar.send("GET", DOCUMENT, headers={"If-None-Match": '"1.1-1"'})).status == 200


async def test_a_stale_version_is_refused_and_says_the_current_one(sidecar: Running) -> None:
    first = (await sidecar.send("PUT", DOCUMENT, {"n": 1})).json()["version"]
    second = await sidecar.send("PUT", DOCUMENT, {"n": 2}, headers={"If-Match": quoted(first)})
    assert second.status == 200
    writes = (
        ("PUT", DOCUMENT, {"n": 3}),
        ("PATCH", DOCUMENT, {"n": 3}),
        ("DELETE", DOCUMENT, None),
        ("POST", TURNS, {"events": [{"content": "x"}], "working_memory": {"set": {}}}),
    )
    for method, path, body in writes:
        stale = await sidecar.send(method, path, body, headers={"If-Match": quoted(first)})
        assert (stale.status, stale.code) == (412, "version-conflict")
        assert stale.json()["current"] == second.json()["version"]
    assert (await sidecar.send("GET", DOCUMENT)).json() == {"n": 2}
    assert (await sidecar.send("GET", "/v1/agents/a/events")).json()["events"] == []


async def test_a_document_that_must_be_new(sidecar: Running) -> None:
    headers = {"If-None-Match": "*"}
    assert (await sidecar.send("PUT", DOCUMENT, {"n": 1}, headers=headers)).status == 200
    again = await sidecar.send("PUT", DOCUMENT, {"n": 2}, headers=headers)
    assert (again.status, again.code) == (412, "version-conflict")


async def test_a_document_is_patched_in_both_ways(sidecar: Running) -> None:
    await sidecar.send("PUT", DOCUMENT, {"a": 1, "b": {"c": 2, "d": 3}})
    assert (await sidecar.send("PATCH", DOCUMENT, {"b": {"c": None}})).status == 200
    merge = {"Content-Type": "application/merge-patch+json; charset=utf-8"}
    assert (await sidecar.send("PATCH", DOCUMENT, {"e": 4}, headers=merge)).status == 200
    operations = [{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 5}]
    patch = {"Content-Type": "application/json-patch+json"}
    assert (await sidecar.send("PATCH", DOCUMENT, operations, headers=patch)).status == 200
    assert (await sidecar.send("GET", DOCUMENT)).json() == {"a": 5, "b": {"d": 3}, "e": 4}
    again = await sidecar.send("PATCH", DOCUMENT, operations, headers=patch)
    assert (again.status, again.code) == (422, "invalid-request")
    other = await sidecar.send("PATCH", DOCUMENT, {}, headers={"Content-Type": "text/plain"})
    assert (other.status, other.code) == (415, "unsupported-media-type")
    assert "application/merge-patch+json" in other.headers["Accept-Patch"]


async def test_a_deletion_that_is_repeated_with_its_key_is_one_deletion(sidecar: Running) -> None:
    assert (await sidecar.send("DELETE", DOCUMENT)).code == "no-working-memory"
    await sidecar.send("PUT", DOCUMENT, {})
    key = {"Idempotency-Key": "delete-1"}
    first = await sidecar.send("DELETE", DOCUMENT, headers=key)
    again = await sidecar.send("DELETE", DOCUMENT, headers=key)
    assert (first.status, again.status) == (200, 200)
    assert again.json() == first.json() | {"repeated": True}
    assert (await sidecar.send("GET", DOCUMENT)).code == "no-working-memory"
    fresh = await sidecar.send("DELETE", DOCUMENT)
    assert (fresh.status, fresh.code) == (404, "no-working-memory")
    assert (await sidecar.send("PUT", DOCUMENT, {"new": 1})).status == 200


async def test_a_kept_snapshot_is_read_by_its_version(sidecar: Running) -> None:
    first = (await sidecar.send("PUT", DOCUMENT, raw=b'{"n": 1.0}')).json()["version"]
    await sidecar.wait("a", first)
    await sidecar.send("PUT", DOCUMENT, {"n": 2})
    snapshot = await sidecar.send("GET", f"{DOCUMENT}?version={first}")
    assert (snapshot.body, snapshot.headers["ETag"]) == (b'{"n": 1.0}', quoted(first))
    shard = first.split(".")[0]
    missing = await sidecar.send("GET", f"{DOCUMENT}?version={shard}.9-9")
    assert (missing.status, missing.code) == (404, "no-snapshot")
    wrong = await sidecar.send("GET", f"{DOCUMENT}?version=nonsense")
    assert (wrong.status, wrong.code) == (422, "invalid-position")


async def test_parts_of_a_document_come_as_they_were_sent(sidecar: Running) -> None:
    sent = b'{"b": [1.0, 1e400, {"z": 1, "a": 12345678901234567890.123}], "a": "\xc3\xa9"}'
    first = (await sidecar.send("PUT", DOCUMENT, raw=sent)).json()["version"]
    got = await sidecar.send("GET", f"{DOCUMENT}?path=$.b[*]")
    assert (got.status, got.headers["ETag"], got.headers["Content-Type"]) == (200, quoted(first), "application/json")
    values = b"1.0", b"1e400", b'{"z": 1, "a": 12345678901234567890.123}'
    matches = b",".join(b'{"path":"$[\'b\'][%d]","value":%s}' % one for one in enumerate(values))
    assert got.body == b'{"version":"%s","matches":[%s]}' % (first.encode(), matches)
    assert (await sidecar.send("GET", f"{DOCUMENT}?path=$.c")).json() == {"version": first, "matches": []}
    known = await sidecar.send("GET", f"{DOCUMENT}?path=$.b", headers={"If-None-Match": quoted(first)})
    assert (known.status, known.body, known.headers["ETag"]) == (304, b"", quoted(first))
    await sidecar.wait("a", first)
    await sidecar.send("PUT", DOCUMENT, {"a": 2})
    assert (await sidecar.send("GET", f"{DOCUMENT}?path=$.a")).json()["matches"] == [{"path": "$['a']", "value": 2}]
    kept = await sidecar.send("GET", f"{DOCUMENT}?path=$.a&version={first}")
    assert kept.json() == {"version": first, "matches": [{"path": "$['a']", "value": "é"}]}


async def test_a_path_that_cannot_be_followed_is_refused(sidecar: Running) -> None:
    wrong = await sidecar.send("GET", f"{DOCUMENT}?path=$.")
    assert (wrong.status, wrong.code) == (422, "invalid-request")
    missing = await sidecar.send("GET", f"{DOCUMENT}?path=$.a")
    assert (missing.status, missing.code) == (404, "no-working-memory")
    await sidecar.send("PUT", DOCUMENT, raw=b'{"a":' * 199 + b"{}" + b"}" * 199)
    bomb = await sidecar.send("GET", f"{DOCUMENT}?path=$..*..*..*..*")
    assert (bomb.status, bomb.code) == (422, "invalid-request")
    assert "path" in bomb.json()["detail"]


async def test_an_expired_document_says_where_its_snapshot_is(config: Config) -> None:
    short = replace(config, settings=replace(config.settings, ttl=0.2))
    path = "/v1/agents/a+b=c/working-memory"
    async with Running(short) as sidecar:
        version = (await sidecar.send("PUT", path, {"kept": True})).json()["version"]
        await sidecar.wait("a+b=c", version)
        while (answer := await sidecar.send("GET", path)).status == 200:
            await asyncio.sleep(0.02)
        assert (answer.status, answer.code) == (404, "expired")
        assert answer.json()["version"] == version
        snapshot = await sidecar.send("GET", answer.json()["snapshot"])
        assert snapshot.json() == {"kept": True}
        hydration = (await sidecar.send("POST", "/v1/agents/a+b=c/hydrate", {})).json()
        assert (hydration["cold_start"], hydration["working_memory"]) == ("expired", None)
        restored = (await sidecar.send("POST", "/v1/agents/a+b=c/hydrate", {"restore": True})).json()
        assert (restored["cold_start"], restored["working_memory"]) == ("expired", {"kept": True})


async def test_what_has_expired_can_still_be_deleted(config: Config) -> None:
    async with Running(replace(config, settings=replace(config.settings, ttl=0.2))) as sidecar:
        await sidecar.wait("a", (await sidecar.send("PUT", DOCUMENT, {})).json()["version"])
        while (answer := await sidecar.send("GET", DOCUMENT)).status == 200:
            await asyncio.sleep(0.02)
        assert answer.code == "expired"
        assert (await sidecar.send("DELETE", DOCUMENT)).status == 200
        assert (await sidecar.send("GET", DOCUMENT)).code == "no-working-memory"


async def test_a_turn_is_answered_by_its_place_and_seen_at_once(sidecar: Running) -> None:
    turn = (
        b'{"session":"day-1","events":['
        b'{"role":"user","content":"hi","at":"2026-11-22T12:00:00Z","metadata":{"task":"q2"}},'
        b'{"type":"tool_call","payload":{"tool": "search", "cost": 1.50}}],'
        b'"working_memory":{"merge":{"step":1}}}'
    )
    answer = await sidecar.send("POST", TURNS, raw=turn)
    receipt = answer.json()
    assert (answer.status, receipt["repeated"], receipt["version"]) == (201, False, receipt["position"])
    page = await sidecar.send("GET", "/v1/agents/a/events")
    first, second = page.json()["events"]
    assert [event["id"] for event in receipt["events"]] == [first["id"], second["id"]]
    assert b'"payload":{"tool": "search", "cost": 1.50}' in page.body
    assert first["at"] == "2026-11-22T12:00:00Z" and first["metadata"] == {"task": "q2"}
    assert (first["session"], first["index"], second["index"]) == ("day-1", 0, 1)
    assert not {"payload"} & set(first) and not {"content", "role", "metadata"} & set(second)
    messages = (await sidecar.send("GET", "/v1/agents/a/messages")).json()
    assert messages == {"messages": [first], "degraded": []}
    assert (await sidecar.send("GET", DOCUMENT)).json() == {"step": 1}


async def test_a_turn_that_is_sent_again_with_its_key_is_one_turn(sidecar: Running) -> None:
    key, body = {"Idempotency-Key": "k-1"}, {"events": [{"content": "once"}]}
    first = await sidecar.send("POST", TURNS, body, headers=key)
    again = await sidecar.send("POST", TURNS, body, headers=key)
    assert (first.status, again.status) == (201, 200)
    assert again.json() == first.json() | {"repeated": True}
    await sidecar.send("POST", TURNS, body)
    await sidecar.send("POST", TURNS, body)
    assert len((await sidecar.send("GET", "/v1/agents/a/events")).json()["events"]) == 3


async def test_the_timeline_is_filtered_and_paged(sidecar: Running) -> None:
    for number in range(5):
        event = {"content": f"{number}", "type": "message" if number % 2 else "decision", "role": "user"}
        event["at"] = f"2026-11-2{number}T12:00:00Z"
        turn = {"events": [event], "session": "odd" if number % 2 else "even"}
        position = (await sidecar.send("POST", TURNS, turn)).json()["position"]
        if number == 2:
            await sidecar.wait("a", position)

    async def found(query: str) -> list[str]:
        answer = await sidecar.send("GET", f"/v1/agents/a/events?{query}")
        assert answer.status == 200, answer.body
        return [event["content"] for event in answer.json()["events"]]

    assert await found("order=desc") == ["4", "3", "2", "1", "0"]
    assert await found("type=decision") == ["0", "2", "4"]
    assert await found("type=decision&type=message&session=odd") == ["1", "3"]
    assert await found("since=2026-11-21T12:00:00Z&until=2026-11-23T12%3A00%3A00%2B00:00") == ["1", "2"]
    assert await found("role=nobody") == []
    contents, cursor = [], ""
    while True:
        page = (await sidecar.send("GET", f"/v1/agents/a/events?limit=2{cursor}")).json()
        contents.append([event["content"] for event in page["events"]])
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert contents == [["0", "1"], ["2", "3"], ["4"]]


@pytest.fixture
async def recalling(config: Config) -> AsyncIterator[Running]:
    async with Running(config, embedder=LettersEmbedder()) as sidecar:
        yield sidecar


async def test_recall_finds_by_text_and_by_vector_within_a_filter(recalling: Running) -> None:
    await recalling.turn("a", "zzz zzz", session="one")
    receipt = await recalling.turn("a", "aaa bbb", session="two")
    await recalling.turn("b", "aaa bbb")
    await recalling.wait("a", receipt["position"], "searchable")
    question = {"query": "bbb aaa", "k": 2, "strategy": "semantic"}
    answer = (await recalling.send("POST", "/v1/agents/a/recall", question)).json()
    assert [hit["content"] for hit in answer["hits"]] == ["aaa bbb", "zzz zzz"]
    best = answer["hits"][0]
    assert (best["kind"], best["position"], best["id"]) == ("event", receipt["position"], receipt["events"][0]["id"])
    assert best["score"] == pytest.approx(1.0, abs=1e-3) and best["scores"] == {"semantic": best["score"]}
    assert (answer["approximate"], answer["not_yet_searchable"], answer["degraded"]) == (False, 0, [])
    narrow = {"query": "bbb aaa", "filter": {"session": "one", "types": ["message"], "since": "2020-01-01T00:00:00Z"}}
    hits = (await recalling.send("POST", "/v1/agents/a/recall", narrow)).json()["hits"]
    assert [hit["content"] for hit in hits] == ["zzz zzz"]
    by_vector = {"vector": [0.0] * 25 + [1.0], "k": 5, "min_score": 0.5}
    hits = (await recalling.send("POST", "/v1/agents/a/recall", by_vector)).json()["hits"]
    assert [hit["content"] for hit in hits] == ["zzz zzz"]


async def test_recall_filters_by_metadata(recalling: Running) -> None:
    events = [{"content": f"abc {n}", "metadata": {"task": f"q{n}", "n": 1.50}} for n in range(3)]
    receipt = (await recalling.send("POST", TURNS, {"events": events})).json()
    await recalling.wait("a", receipt["position"], "searchable")
    question = b'{"query": "abc", "filter": {"metadata": {"task": "q1", "n": 1.5}}}'
    hits = (await recalling.send("POST", "/v1/agents/a/recall", raw=question)).json()["hits"]
    assert [hit["content"] for hit in hits] == ["abc 1"]


async def test_hydrate_gives_the_document_recent_and_recalled_in_a_budget(recalling: Running) -> None:
    await recalling.send("PUT", DOCUMENT, raw=b'{"step": 1.50}')
    receipt = await recalling.turn("a", *(f"message {n}" for n in range(60)), "zebra jazz")
    await recalling.turn("a", *(f"later {n}" for n in range(60)))
    await recalling.wait("a", receipt["position"], "searchable")
    fact = {"topic": "zebra", "content": "plays jazz", "confidence": 0.5}
    assert (await recalling.send("POST", "/v1/agents/a/knowledge", fact)).status == 201
    wish = {"query": "jazz zebra", "budget": {"tokens": 400}, "k": 3}
    answer = await recalling.send("POST", "/v1/agents/a/hydrate", wish)
    hydration = answer.json()
    assert b'"working_memory":{"step": 1.50}' in answer.body
    assert hydration["recalled"][0]["content"] == "zebra jazz" and hydration["recalled"][0]["kind"] == "event"
    assert hydration["recent"][-1]["content"] == "later 59"
    assert hydration["tokens"] <= 400 and hydration["left_out"]["recent"] > 0
    assert (hydration["cold_start"], hydration["degraded"]) == (None, [])
    assert [(one["kind"], one["content"]) for one in hydration["knowledge"]] == [("fact", "plays jazz")]
    assert "zebra: plays jazz (confidence 0.5)" in hydration["text"]
    assert "zebra jazz" in hydration["text"] and "later 59" in hydration["text"]


async def test_hydrating_an_unknown_agent_is_a_cold_start(sidecar: Running) -> None:
    answer = await sidecar.send("POST", "/v1/agents/nobody/hydrate", raw=b"")
    assert (answer.status, answer.json()["cold_start"], answer.json()["text"]) == (200, "new-agent", "")


async def test_semantic_recall_without_embeddings_says_so_and_words_are_found(sidecar: Running) -> None:
    answer = await sidecar.send("POST", "/v1/agents/a/recall", {"query": "x", "strategy": "semantic"})
    assert (answer.status, answer.code) == (503, "recall-unavailable")
    await sidecar.turn("a", "the tank")
    found = (await sidecar.send("POST", "/v1/agents/a/recall", {"query": "tanks"})).json()
    assert [hit["content"] for hit in found["hits"]] == ["the tank"]
    assert (found["hits"][0]["scores"].keys(), found["degraded"]) == ({"keyword"}, [])


async def test_recall_is_by_meaning_and_by_keyword_and_ranks_as_it_is_told(recalling: Running) -> None:
    told = [("the tank leaks", "2026-11-14T18:00:00Z"), ("the tank leaks", "2026-11-15T18:00:00Z"),
            ("a tank, empty", "2026-11-16T18:00:00Z")]  # fmt: skip
    events = [{"content": content, "at": at} for content, at in told]
    receipt = (await recalling.send("POST", TURNS, {"events": events})).json()
    await recalling.wait("a", receipt["position"], "searchable")

    async def ask(**more: Any) -> list[dict[str, Any]]:
        body = {"query": "the tank on 2026-11-15 in the evening", "k": 2, "time_zone": "Europe/Vienna", **more}
        return list((await recalling.send("POST", "/v1/agents/a/recall", body)).json()["hits"])

    hits = await ask()
    assert hits[0]["at"] == "2026-11-15T18:00:00Z"
    assert set(hits[0]["scores"]) == {"semantic", "keyword", "time"}
    assert {"time"} & set((await ask(named_times=False))[0]["scores"]) == set()
    assert set((await ask(recency={"half_life": "7d", "weight": 0.3}))[0]["scores"]) >= {"recency"}
    assert len({hit["content"] for hit in await ask(diversity=0.7, named_times=False)}) == 2


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ({"time_zone": "Mars/Olympus"}, "Europe/Vienna"), ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"recency": {"half_life": "soon", "weight": 0.2}}, "recency.half_life"),
        ({"recency": {"half_life": "0s", "weight": 0.2}}, "more than nothing"),
        ({"recency": {"half_life": "7d", "weight": 2}}, "weight"), ({"diversity": -1}, "diversity"),
        ({"strategy": "magic"}, "strategy"), ({"vector": [1.0], "query": None, "strategy": "keyword"}, "needs `query`"),
    ],
)  # fmt: skip
async def test_how_recall_cannot_rank(recalling: Running, member: dict[str, Any], says: str) -> None:
    answer = await recalling.send("POST", "/v1/agents/a/recall", {"query": "x"} | member)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert says in answer.json()["detail"]


async def test_the_status_and_the_state_of_a_position(sidecar: Running) -> None:
    receipt = await sidecar.turn("a", "x")
    position = receipt["position"]
    await sidecar.wait("a", position)
    status = (await sidecar.send("GET", "/v1/consolidation")).json()
    assert (status["pending"], status["lag_seconds"], status["dead_letters"], status["degraded"]) == (0, 0.0, 0, [])
    assert status["persistence"] == "append-only file"
    shard = status["shards"][int(position.split(".")[0])]
    assert (shard["open"], shard["durable"], shard["owner"]) == (True, position, "one")
    state = (await sidecar.send("GET", f"/v1/consolidation?agent=a&position={position}")).json()
    assert state == {"position": position, "state": "searchable"}
    for query in ("agent=a", f"position={position}", f"agent=b&position={position}"):
        assert (await sidecar.send("GET", f"/v1/consolidation?{query}")).code == "invalid-request"


async def test_a_barrier_that_is_not_reached_times_out(config: Config, sidecar: Running) -> None:
    idle = replace(config, settings=replace(config.settings, instance="idle"))
    position = (await sidecar.turn("a", "x"))["position"]
    ahead = f"{position.rpartition('-')[0]}-999"
    async with Running(idle, work=False) as other:
        body = {"positions": [{"agent": "a", "position": ahead}], "timeout_seconds": 0}
        answer = await other.send("POST", "/v1/consolidation/barrier", body)
    assert (answer.status, answer.code) == (504, "barrier-timeout")


async def test_a_barrier_on_what_a_store_lost_says_so(stores: LocalStores, config: Config) -> None:
    slow = replace(config, settings=replace(config.settings, max_delay=3600.0))
    async with Running(slow) as sidecar:
        receipt = await sidecar.turn("a", "lost with Redis")
        position = receipt["position"]
        async with admin_redis(stores) as admin:
            await admin.flushall()
        body = {"positions": [{"agent": "a", "position": position}]}
        answer = await sidecar.send("POST", "/v1/consolidation/barrier", body)
        assert (answer.status, answer.code) == (410, "position-lost")
        state = await sidecar.send("GET", f"/v1/consolidation?agent=a&position={position}")
        assert state.json()["state"] == "lost"


async def test_dead_letters_are_listed_replayed_and_discarded(sidecar: Running) -> None:
    raw = b'{"events": [{"content": "%d", "metadata": {"number": 1e200000}}]}'
    receipts = [(await sidecar.send("POST", TURNS, raw=raw % number)).json() for number in range(3)]
    await sidecar.wait("a", receipts[-1]["position"])
    letters, cursor = [], ""
    while True:
        answer = await sidecar.send("GET", f"/v1/dead-letters?limit=2{cursor}")
        letters += answer.json()["dead_letters"]
        if answer.json()["cursor"] is None:
            break
        cursor = f"&cursor={answer.json()['cursor']}"
    assert [letter["event"]["content"] for letter in letters] == ["0", "1", "2"]
    assert b'"number": 1e200000' in answer.body
    letter = letters[-1]
    assert (letter["agent"], letter["position"], letter["sqlstate"]) == ("a", receipts[-1]["position"], "22003")
    path = f"/v1/dead-letters/a/{letter['id']}"
    replay = await sidecar.send("POST", f"{path}/replay")
    assert (replay.status, replay.code) == (422, "invalid-request")
    discard = await sidecar.send("DELETE", path)
    assert (discard.status, discard.json()) == (200, {"deleted": True})
    for method, gone in (("DELETE", path), ("POST", f"{path}/replay"), ("DELETE", "/v1/dead-letters/a/no-uuid")):
        answer = await sidecar.send(method, gone)
        assert (answer.status, answer.code) == (404, "no-dead-letter")
    assert len((await sidecar.send("GET", "/v1/dead-letters")).json()["dead_letters"]) == 2
    assert (await sidecar.send("GET", "/v1/consolidation")).json()["dead_letters"] == 2


async def test_a_pod_names_only_the_agents_it_may(config: Config, sidecar: Running) -> None:
    raw = b'{"events": [{"content": "x", "metadata": {"number": 1e200000}}]}'
    position = ""
    for agent in ("team-1", "other"):
        position = (await sidecar.send("POST", f"/v1/agents/{agent}/turns", raw=raw)).json()["position"]
        await sidecar.wait(agent, position)
    scoped = replace(config, agents=("team-*", "ops"), settings=replace(config.settings, instance="scoped"))
    barrier = {"positions": [{"agent": "other", "position": position}]}
    async with Running(scoped) as pod:
        assert (await pod.send("GET", "/v1/agents/team-1/events")).status == 200
        assert (await pod.send("GET", "/v1/agents/ops/events")).status == 200
        for method, path, body in (
            ("GET", "/v1/agents/other/working-memory", None),
            ("GET", "/v1/agents/ops2/events", None),
            ("POST", "/v1/agents/other/turns", {"events": []}),
            ("DELETE", "/v1/dead-letters/other/00000000-0000-0000-0000-000000000000", None),
            ("GET", f"/v1/consolidation?agent=other&position={position}", None),
            ("POST", "/v1/consolidation/barrier", barrier),
        ):
            answer = await pod.send(method, path, body)
            assert (answer.status, answer.code) == (403, "agent-not-allowed"), path
        letters = (await pod.send("GET", "/v1/dead-letters")).json()["dead_letters"]
        assert [letter["agent"] for letter in letters] == ["team-1"]


async def test_answers_are_json_that_says_so(sidecar: Running) -> None:
    for path in ("/v1/agents/a/events", "/v1/consolidation", "/openapi.json"):
        answer = await sidecar.send("GET", path)
        assert answer.headers["Content-Type"].startswith("application/json")
        json.loads(answer.body)
