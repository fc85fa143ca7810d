"""Timelines by metadata and across agents, on real stores."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from itertools import combinations, product
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.events import Filter
from agentmemory_engine.positions import Position
from agentmemory_sidecar.config import Config
from support.memories import admin_postgres
from support.sidecars import Running

NUMBERS = (
    "0", "-0", "1", "1.0", "1e0", "10", "1e1", "0.1", "0.10", "1e-400", "1e400", "1e401", "12345678901234567890.123",
    "12345678901234567890.124", "9007199254740992", "9007199254740993",
)  # fmt: skip
SCALARS = st.sampled_from(("null", "true", "false", '""', '"1"', '"a"', '"\\u0061"', '"é"', *NUMBERS))


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(st.sampled_from("ab"), inner).map(lambda member: f'"{member[0]}":{member[1]}')
    return st.lists(members, max_size=3).map(lambda items: f"{{{','.join(items)}}}")


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | objects(inner), max_leaves=6)
OBJECTS = objects(VALUES)


@pytest.fixture
async def postgres(stores: LocalStores) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await admin_postgres(stores)
    yield connection
    await connection.close()


def holding(metadata: str | None) -> StoredEvent:
    """An event with this metadata."""
    nothing: Any = None
    return StoredEvent(
        id=nothing, position=Position.parse("0.1-1"), index=0, type="message", role=None, content="", payload=None,
        metadata=None if metadata is None else metadata.encode(), session=None, at=nothing, accepted_at=nothing,
    )  # fmt: skip


async def assert_alike(postgres: asyncpg.Connection[Any], pairs: Sequence[tuple[str, str]]) -> None:
    """Each pair of texts: whether the first contains the second is the same here and in Postgres."""
    rows = await postgres.fetch(
        "SELECT a::jsonb @> b::jsonb AS contained FROM unnest($1::text[], $2::text[]) AS t (a, b)",
        [one for one, _ in pairs], [wanted for _, wanted in pairs],
    )  # fmt: skip
    found = [Filter(metadata=wanted.encode()).matches(holding(one)) for one, wanted in pairs]
    for pair, ours, theirs in zip(pairs, found, (row["contained"] for row in rows), strict=True):
        assert ours == theirs, pair


async def test_numbers_are_contained_as_postgres_has_it(postgres: asyncpg.Connection[Any]) -> None:
    await assert_alike(postgres, [(f'{{"a": {one}}}', f'{{"a": {other}}}') for one, other in product(NUMBERS, NUMBERS)])


async def test_small_values_are_contained_as_postgres_has_it(postgres: asyncpg.Connection[Any]) -> None:
    flat: list[Any] = [1, True, "a", [], [1], ["a"], [1, "a"], {}, {"a": 1}, {"a": "a"}, {"a": 1, "b": "a"}]
    values = flat + [{"b": one} for one in flat] + [[one] for one in flat] + list(map(list, combinations(flat, 2)))
    texts = [json.dumps({"a": value}) for value in values]
    await assert_alike(postgres, list(product(texts, texts)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(OBJECTS, min_size=4, max_size=8))
async def test_metadata_is_contained_as_postgres_has_it(postgres: asyncpg.Connection[Any], several: list[str]) -> None:
    await assert_alike(postgres, list(product(several, several)))


EVENTS = [
    ("0", '{"task": "q2", "n": 1.0}'),
    ("1", '{"task": "q3"}'),
    ("2", "{}"),
    ("3", '{"task": "q2", "tags": ["a", {"b": 1}]}'),
    ("4", None),
]


async def tell(sidecar: Running, agent: str, content: str, metadata: str | None = None) -> str:
    """Record one event; its position."""
    more = "" if metadata is None else f', "metadata": {metadata}'
    raw = f'{{"events": [{{"content": "{content}"{more}}}]}}'.encode()
    return str((await sidecar.send("POST", f"/v1/agents/{agent}/turns", raw=raw)).json()["position"])


async def contents(sidecar: Running, path: str, **query: Any) -> list[str]:
    answer = await sidecar.send("GET", f"{path}?{urlencode(query, doseq=True)}")
    assert answer.status == 200, answer.body
    return [event["content"] for event in answer.json()["events"]]


@asynccontextmanager
async def half_flushed(
    config: Config, told: Sequence[tuple[str, str, str | None]], durable: int
) -> AsyncIterator[Running]:
    """A sidecar after some events, (agent, content, metadata), of which so many are in Postgres and no more will be."""
    async with Running(config) as working:
        await working.wait_until_ready()
        for one in told[:durable]:
            await working.wait(one[0], await tell(working, *one))
    async with Running(config, work=False) as idle:
        for one in told[durable:]:
            await tell(idle, *one)
        yield idle


@pytest.mark.parametrize("durable", [0, 3, 5])
async def test_the_timeline_is_filtered_by_metadata_in_both_tiers(config: Config, durable: int) -> None:
    async with half_flushed(config, [("a", *event) for event in EVENTS], durable) as sidecar:
        for wanted, expected in (
            ({"task": "q2"}, ["0", "3"]),
            ({"n": 1}, ["0"]),
            ({"tags": [{"b": 1}]}, ["3"]),
            ({}, ["0", "1", "2", "3"]),
            ({"task": "q4"}, []),
        ):
            assert await contents(sidecar, "/v1/agents/a/events", metadata=json.dumps(wanted)) == expected


TOLD: list[tuple[str, str, str | None]] = [
    (agent, f"{agent}{number}", '{"even": true}' if number % 2 == 0 else None)
    for number in range(6)
    for agent in ("a", "b", "c")
]


@pytest.mark.parametrize("durable", [0, 8, 18])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_several_timelines_are_one_page_by_page(config: Config, durable: int, order: str) -> None:
    async with half_flushed(config, TOLD, durable) as sidecar:
        told = TOLD if order == "asc" else TOLD[::-1]
        every = {"agents": ["c", "a", "b"], "order": order}
        whole = (await sidecar.send("GET", f"/v1/events?{urlencode(every, doseq=True)}")).json()
        assert (whole["cursor"], whole["degraded"]) == (None, [])
        times = [datetime.fromisoformat(event["accepted_at"]) for event in whole["events"]]
        assert times == sorted(times, reverse=order == "desc")
        for agent in "abc":
            kept = [event["content"] for event in whole["events"] if event["agent"] == agent]
            assert kept == [content for whose, content, _ in told if whose == agent]
        paged: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = (
                await sidecar.send("GET", f"/v1/events?{urlencode(every | {'limit': 4} | cursor, doseq=True)}")
            ).json()
            paged += page["events"]
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
        assert paged == whole["events"]
        found = await contents(sidecar, "/v1/events", agents=["a", "c"], order=order, metadata='{"even": true}')
        assert sorted(found) == sorted(content for whose, content, even in told if whose != "b" and even)


async def test_what_is_written_between_two_pages_comes_on_a_later_one(sidecar: Running) -> None:
    for agent, content, _ in TOLD:
        await sidecar.wait(agent, await tell(sidecar, agent, content))
    every = {"agents": ["a", "b", "c"], "limit": 5}
    first = (await sidecar.send("GET", f"/v1/events?{urlencode(every, doseq=True)}")).json()
    await tell(sidecar, "a", "late")
    rest = await contents(sidecar, "/v1/events", **every | {"cursor": first["cursor"], "limit": 500})
    assert sorted([event["content"] for event in first["events"]] + rest) == sorted(
        [content for _, content, _ in TOLD] + ["late"]
    )
    assert rest[-1] == "late"


async def test_a_cursor_is_good_for_its_own_query_only(sidecar: Running) -> None:
    for number in range(3):
        await tell(sidecar, "a", str(number))
    path = "/v1/agents/a/events"
    cursor = (await sidecar.send("GET", f"{path}?limit=1")).json()["cursor"]
    assert await contents(sidecar, path, cursor=cursor, limit=9) == ["1", "2"]
    for other in ({"order": "desc"}, {"type": "message"}, {"metadata": "{}"}, {"since": "2026-01-01T00:00:00Z"}):
        refused = await sidecar.send("GET", f"{path}?{urlencode({'cursor': cursor, **other})}")
        assert (refused.status, refused.code) == (422, "invalid-request")
        assert "of another query" in refused.json()["detail"]
    for elsewhere in ("/v1/agents/b/events?", "/v1/events?agents=a&agents=b&"):
        assert (await sidecar.send("GET", f"{elsewhere}cursor={cursor}")).status == 422


@pytest.mark.parametrize(
    "metadata",
    ["", "1", "[]", "null", "{", '{"a":1', '{"a":"\\u0000"}', '{"a":"\\ud800"}', '{"a":1e200000}', '{"a":' * 300],
)
async def test_metadata_that_is_no_object_is_refused(sidecar: Running, metadata: str) -> None:
    for path in ("/v1/agents/a/events?", "/v1/events?agents=a&"):
        answer = await sidecar.send("GET", f"{path}{urlencode({'metadata': metadata})}")
        assert answer.status == 422 and answer.code in ("invalid-request", "unstorable-text")


async def test_several_timelines_are_of_agents_that_the_pod_may_name(config: Config, sidecar: Running) -> None:
    for agent in ("a", "b", "c"):
        await sidecar.wait(agent, await tell(sidecar, agent, agent))
    for query in ("", "?agents=", "?agents=%20", f"?{'&'.join(f'agents=x{number}' for number in range(51))}"):
        assert (await sidecar.send("GET", f"/v1/events{query}")).status == 422
    async with Running(replace(config, agents=("b", "a")), work=False) as named:
        assert sorted(await contents(named, "/v1/events")) == ["a", "b"]
        assert await contents(named, "/v1/events", agents=["b", "b"]) == ["b"]
        assert (await named.send("GET", "/v1/events?agents=a&agents=c")).code == "agent-not-allowed"
    async with Running(replace(config, agents=("a*",)), work=False) as patterned:
        assert (await patterned.send("GET", "/v1/events")).status == 422
        assert await contents(patterned, "/v1/events", agents=["a"]) == ["a"]


async def test_without_redis_several_timelines_say_that_they_are_not_whole(
    stores: LocalStores, sidecar: Running
) -> None:
    await sidecar.wait("a", await tell(sidecar, "a", "kept"))
    await stores.valkey.stop()
    try:
        answer = await sidecar.send("GET", "/v1/events?agents=a&agents=b")
    finally:
        await stores.valkey.start()
    assert [event["content"] for event in answer.json()["events"]] == ["kept"]
    assert answer.json()["degraded"] == ["unflushed"]
