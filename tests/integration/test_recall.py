"""Recall by keyword and by both, against an exhaustive ranking, with writers at work and rows that go."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.embedding import EmbeddingUnavailable, Vector, from_floats
from agentmemory_engine.errors import InvalidInput, RecallUnavailable
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.memory import Memory
from agentmemory_engine.postings import Indexed, Postings
from agentmemory_engine.recall import RecallQuery, Recency
from agentmemory_engine.settings import Settings
from agentmemory_engine.terms import terms_of
from agentmemory_engine.turns import parse_turn
from support.memories import MakeMemory, admin_postgres, admin_redis, consolidate, in_every_mode

WORDS = ["tank", "fan", "pressure", "battery", "heater", "valve", "water", "sleep", "burn", "angle"]


class Letters:
    """An embedder whose vectors count letters, and that is down when told so."""

    enabled = True
    model = "letters"
    dimensions = 26

    def __init__(self) -> None:
        self.down = False

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def embed(self, texts: Any) -> list[Vector]:
        if self.down:
            raise EmbeddingUnavailable("down")
        return [from_floats([text.count(chr(97 + letter)) + 0.01 for letter in range(26)]) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        return (await self.embed([text]))[0]


async def record(memory: Memory, *contents: str, agent: str = "a", **turn: Any) -> Any:
    body = {"events": [{"content": content} for content in contents]} | turn
    return await memory.record(agent, parse_turn(json.dumps(body).encode()))


async def found(memory: Memory, query: str, *, agent: str = "a", **more: Any) -> list[str | None]:
    hits = (await memory.recall(agent, RecallQuery(query=query, **more))).hits
    return [hit.event.content for hit in hits]


async def everything(memory: Memory, agent: str = "a") -> list[StoredEvent]:
    events: list[StoredEvent] = []
    cursor = None
    while True:
        page = await memory.timeline(agent, TimelineQuery(limit=500, cursor=cursor))
        events += page.events
        cursor = page.cursor
        if cursor is None:
            return events


def ranked(events: list[StoredEvent], query: str) -> list[tuple[str, float]]:
    """All events that match, as an index that was made for this query alone ranks them."""
    index = Postings()
    index.add(
        Indexed(one.id.bytes, one.at.timestamp(), one.type, one.role, one.session, terms_of(one.content or ""))
        for one in events
    )
    scores, holds = index.scores(terms_of(query))
    places = sorted(range(len(events)), key=lambda place: (-scores[place], -place))
    return [(str(events[place].id), float(scores[place])) for place in places if holds[place]]


async def assert_exhaustive(memory: Memory, query: str, agent: str = "a") -> None:
    hits = (await memory.recall(agent, RecallQuery(query=query, strategy="keyword", k=100))).hits
    expected = ranked(await everything(memory, agent), query)[:100]
    assert [str(hit.event.id) for hit in hits] == [one for one, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected])


async def test_an_acknowledged_event_is_found_by_keyword_at_once(make_memory: MakeMemory) -> None:
    async with make_memory(max_delay=600.0) as memory:
        receipt = await record(memory, "the oxygen tank lost pressure")
        assert await memory.state("a", receipt.position) == "pending"
        assert await found(memory, "tanks losing pressures", strategy="keyword") == ["the oxygen tank lost pressure"]
        assert await found(memory, "tank") == ["the oxygen tank lost pressure"], "hybrid, with no provider at all"
        assert await found(memory, "giraffe") == []
        assert await found(memory, "tank", agent="b") == []


@in_every_mode
async def test_the_ranking_is_exhaustive_in_every_mix_of_tiers(make_memory: MakeMemory) -> None:
    dice = random.Random(5)
    async with make_memory(max_delay=600.0, embedder=Letters()) as memory:
        for step in range(40):
            texts = [" ".join(dice.choices(WORDS, k=dice.randint(1, 6))) for _ in range(dice.randint(1, 4))]
            receipt = await record(memory, *texts, session=dice.choice(["one", "two"]))
            if step % 7 == 3:
                await flush(memory, receipt)
            if step % 4 == 0:
                await assert_exhaustive(memory, " ".join(dice.choices(WORDS, k=3)))
    async with make_memory() as memory:
        await assert_exhaustive(memory, "tank valve")


async def flush(memory: Memory, receipt: Any, agent: str = "a") -> None:
    await consolidate(memory)
    await memory.wait([(agent, receipt.position)], "durable", 20)


@in_every_mode
async def test_writers_at_work_do_not_disturb_a_ranking(make_memory: MakeMemory) -> None:
    """Several sidecars write and ask at once; whatever was acknowledged before a question is found by it."""
    async with make_memory(max_delay=0.05) as one, make_memory(max_delay=0.05) as other:

        async def work(memory: Memory, name: str) -> None:
            dice = random.Random(name)
            for number in range(25):
                await record(memory, f"{name}{number} {dice.choice(WORDS)}", session=name)
                assert len(await found(memory, f"{name}{number}", strategy="keyword")) == 1

        async with asyncio.TaskGroup() as group:
            for memory, name in ((one, "ant"), (one, "bee"), (other, "cat"), (other, "dog")):
                group.create_task(work(memory, name))
        for memory in (one, other):
            for word in WORDS:
                await assert_exhaustive(memory, word)


async def test_rows_that_go_or_come_out_of_order_are_noticed(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    schema = settings.keys.schema
    async with make_memory() as memory:
        receipt = await record(memory, "first tank", "second tank", "third fan")
        await memory.wait([("a", receipt.position)], "durable", 20)
        await assert_exhaustive(memory, "tank fan")
        connection = await admin_postgres(stores)
        row = await connection.fetchrow(f"DELETE FROM {schema}.memory_events WHERE content = 'first tank' RETURNING *")
        assert row is not None
        assert await found(memory, "tank", strategy="keyword") == ["second tank"], "gone without a word of it"
        columns = ", ".join(row.keys())
        marks = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {schema}.memory_events ({columns}) VALUES ({marks})", *row.values())
            await connection.execute(bump_revision(settings), ["a"])
            assert await found(memory, "tank", strategy="keyword") == ["second tank"], "not committed yet"
        await assert_exhaustive(memory, "tank fan")
        assert len(await found(memory, "tank", strategy="keyword")) == 2
        await connection.close()


def bump_revision(settings: Settings) -> str:
    text = files("agentmemory_engine").joinpath("queries", "bump_revision.sql").read_text()
    return text.replace("{schema}", settings.keys.schema)


@in_every_mode
async def test_a_gap_has_all_indexes_built_anew(
    make_memory: MakeMemory, stores: LocalStores, settings: Settings
) -> None:
    async with make_memory() as memory:
        receipt = await record(memory, "first tank", "second tank", "a fan")
        await memory.wait([("a", receipt.position)], "durable", 20)
        assert len(await found(memory, "tank", strategy="keyword")) == 2
        connection = await admin_postgres(stores)
        schema = settings.keys.schema
        await connection.execute(f"DELETE FROM {schema}.memory_events WHERE content LIKE '%tank'")
        await connection.execute(f"INSERT INTO {schema}.gaps VALUES (0, 1, 1, 1, 2)")
        await connection.close()
        await assert_exhaustive(memory, "fan")


@in_every_mode
async def test_filters_narrow_and_nothing_else(make_memory: MakeMemory) -> None:
    start = datetime(2026, 11, 20, tzinfo=UTC)
    async with make_memory(max_delay=600.0, embedder=Letters()) as memory:
        for number in range(24):
            body = {
                "session": f"s{number % 2}",
                "events": [{"content": f"tank {number}", "type": ["message", "decision"][number % 2],
                            "role": ["user", "assistant"][number // 2 % 2], "metadata": {"part": number % 3},
                            "at": (start + timedelta(hours=number)).isoformat()}],
            }  # fmt: skip
            receipt = await memory.record("a", parse_turn(json.dumps(body).encode()))
            if number == 15:
                await flush(memory, receipt)
                await memory.wait([("a", receipt.position)], "searchable", 20)
        events = await everything(memory)
        for wanted in (
            Filter(), Filter(types=["decision"]), Filter(types=["decision", "none"]), Filter(session="s0"),
            Filter(session="none"),
            Filter(role="user"), Filter(since=start + timedelta(hours=5), until=start + timedelta(hours=20)),
            Filter(metadata=b'{"part": 2}'), Filter(metadata=b'{"part": 2}', session="s1", role="assistant"),
        ):  # fmt: skip
            passing = {one.content for one in events if wanted.matches(one)}
            assert set(await found(memory, "tank", strategy="keyword", filter=wanted, k=100)) == passing
            assert set(await found(memory, "tank", filter=wanted, k=100)) == passing
            few = await found(memory, "tank", filter=wanted, k=3)
            assert len(few) == min(3, len(passing))


@in_every_mode
async def test_hybrid_says_what_each_part_scored_and_does_without_a_provider_that_is_down(
    make_memory: MakeMemory,
) -> None:
    letters = Letters()
    async with make_memory(embedder=letters) as memory:
        receipt = await record(memory, "a kant", "zzz", "the tank")
        await memory.wait([("a", receipt.position)], "searchable", 20)
        hits = (await memory.recall("a", RecallQuery(query="tank"))).hits
        assert [hit.event.content for hit in hits][:1] == ["the tank"]
        assert set(hits[0].scores) == {"semantic", "keyword"}
        assert hits[1].event.content == "a kant", "by its letters, which is all that this model knows"
        assert hits[1].scores["keyword"] == 0
        letters.down = True
        answer = await memory.recall("a", RecallQuery(query="tank"))
        assert (answer.degraded, [hit.event.content for hit in answer.hits]) == (["semantic"], ["the tank"])
        with pytest.raises(RecallUnavailable):
            await memory.recall("a", RecallQuery(query="tank", strategy="semantic"))


@in_every_mode
async def test_a_time_in_the_query_counts_unless_told_not_to(make_memory: MakeMemory) -> None:
    async with make_memory() as memory:
        for day in range(10, 20):
            at = datetime(2026, 11, day, 18, tzinfo=UTC).isoformat()
            await memory.record(
                "a", parse_turn(json.dumps({"events": [{"content": f"tank {day}", "at": at}]}).encode())
            )
        now = datetime(2026, 11, 24, tzinfo=UTC)
        assert await found(memory, "the tank on the evening of the 14th", k=1, now=now) == ["tank 14"]
        plain = await found(memory, "the tank on the evening of the 14th", k=1, now=now, named_times=False)
        assert plain == ["tank 19"], "of equals the newest"


@in_every_mode
async def test_recency_and_diversity(make_memory: MakeMemory) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    said = [("tank pressure low", 1), ("tank pressure low", 2), ("tank", 30), ("tank pressure fan", 60)]
    async with make_memory() as memory:
        for content, age in said:
            at = (now - timedelta(days=age)).isoformat()
            await memory.record("a", parse_turn(json.dumps({"events": [{"content": content, "at": at}]}).encode()))
        assert (await found(memory, "tank pressure fan", now=now))[0] == "tank pressure fan"
        recent = await found(memory, "tank pressure fan", now=now, recency=Recency(half_life=86_400, weight=0.9))
        assert recent[0] == "tank pressure low"
        assert len(set(await found(memory, "tank pressure", k=3, now=now, diversity=0.6))) == 3


async def test_an_error_leaves_no_index_that_is_half_of_it(
    make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_memory(max_delay=600.0) as memory:
        await flush(memory, await record(memory, "walrus alone", "heron alone"))
        receipt = await record(memory, "pelican alone")

        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        for broken in ("agentmemory_engine.candidates.rank", "agentmemory_engine.postings.Postings.drop_last"):
            with monkeypatch.context() as patch:
                patch.setattr(broken, fail)
                with pytest.raises(ZeroDivisionError):
                    await found(memory, "walrus", strategy="keyword")
        await flush(memory, receipt)
        await assert_exhaustive(memory, "walrus pelican heron")


@in_every_mode
async def test_dates_at_the_ends_of_time_keep_nobody_from_recall(make_memory: MakeMemory) -> None:
    async with make_memory() as memory:
        for at in ("9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"):
            body = {"events": [{"content": f"valid until {at}", "at": at}]}
            await flush(memory, await memory.record("a", parse_turn(json.dumps(body).encode())))
        page = await memory.timeline("a", TimelineQuery())
        assert [event.at.isoformat()[:4] for event in page.events] == ["9999", "0001"]
        assert all(event.at.tzinfo is not None for event in page.events)
        for zone in ("UTC", "Europe/Vienna", "America/New_York"):
            assert len(await found(memory, "valid until 9999-12-31", zone=ZoneInfo(zone))) == 2


async def test_a_turn_that_was_sent_again_after_redis_forgot_is_one_hit(
    make_memory: MakeMemory, stores: LocalStores
) -> None:
    turn = parse_turn(b'{"events": [{"content": "tank one"}, {"content": "tank two"}]}')
    async with make_memory(max_delay=600.0) as memory:
        receipt = await memory.record("a", turn, key="same")
        await flush(memory, receipt)
        async with admin_redis(stores) as client:
            keys = [key async for key in client.scan_iter(match=f"{memory.settings.keys.prefix}*:key:*")]
            assert await client.delete(*keys)
        await memory.record("a", turn, key="same")
        assert sorted(str(one) for one in await found(memory, "tank", k=5)) == ["tank one", "tank two"]


@pytest.mark.parametrize(
    "query",
    [
        RecallQuery(), RecallQuery(query=" "), RecallQuery(query="a", vector=[1.0]),
        RecallQuery(vector=[1.0], strategy="keyword"), RecallQuery(vector=[1.0], strategy="hybrid"),
    ],
)  # fmt: skip
@in_every_mode
async def test_what_cannot_be_asked(memory: Memory, query: RecallQuery) -> None:
    with pytest.raises(InvalidInput):
        await memory.recall("a", query)
