"""Channels on real Valkey: order, replay, keys, retention, groups, and stores that go back in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw

from agentmemory.local.stores import LocalStores
from agentmemory_engine import channels
from agentmemory_engine.channels import BEGINNING, NOW, Group, MessagePage, NewMessage
from agentmemory_engine.errors import (
    InvalidAgentId,
    InvalidChannel,
    InvalidInput,
    InvalidPosition,
    KeyReused,
    PositionLost,
    TooLarge,
    TooManyFollowers,
)
from agentmemory_engine.memory import Memory
from agentmemory_engine.positions import START, Position
from support.memories import MakeMemory, admin_redis, parts_of

REDIS_KINDS = ["valkey", "cluster"]

Texts = list[str]


def message(text: str, sender: str = "a", **more: Any) -> NewMessage:
    return NewMessage(sender=sender, payload=Raw(text.encode()), **more)


async def publish(memory: Memory, channel: str, *texts: str) -> list[Position]:
    return [(await memory.channels.publish(channel, message(text)))[0] for text in texts]


def texts(page: MessagePage) -> Texts:
    return [one.payload.decode() for one in page.messages]


def group(consumer: str = "one", **more: Any) -> Group:
    return Group(name="g", consumer=consumer, **more)


async def acknowledge(memory: Memory, channel: str, page: MessagePage) -> int:
    return await memory.channels.acknowledge(channel, "g", [str(one.position) for one in page.messages])


def keys_of(memory: Memory, channel: str) -> tuple[str, str, str]:
    keys, shard = memory.settings.keys, memory.settings.shard_of(channel)
    return keys.channel(shard, channel), keys.channel_state(shard, channel), keys.channels(shard)


async def test_messages_are_read_in_order_as_they_were_sent_from_any_position(memory: Memory) -> None:
    given = [b'{"n": 1.50, "n2":1e400}', b' "x" ', b"null"]
    positions = [
        (
            await memory.channels.publish(
                "c", NewMessage(sender=f"a{n}", payload=Raw(one), type="t", metadata=Raw(b"{ }"))
            )
        )[0]
        for n, one in enumerate(given)
    ]
    assert positions == sorted(positions) and len(set(positions)) == 3
    page = await memory.channels.read("c")
    assert [(one.position, one.sender, one.payload) for one in page.messages] == [
        (position, f"a{n}", one) for n, (position, one) in enumerate(zip(positions, given, strict=True))
    ]
    assert {(one.type, one.metadata) for one in page.messages} == {("t", b"{ }")}
    assert (page.position, page.missed) == (positions[2], 0)
    after = await memory.channels.read("c", after=str(positions[0]), limit=1)
    assert texts(after) == [' "x" '] and after.position == positions[1]
    assert texts(await memory.channels.read("c", after=str(positions[2]))) == []
    assert texts(await memory.channels.read("other")) == []


async def test_a_channel_that_is_not_there_reads_empty_and_goes_on_from_its_beginning(memory: Memory) -> None:
    begun = [await memory.channels.read("c", after=after) for after in (BEGINNING, NOW)]
    page = begun[0]
    assert begun[1] == page
    assert (page.messages, page.missed) == ([], 0) and page.position is not None and page.position.entry == START
    await publish(memory, "c", "1")
    found = await memory.channels.read("c", after=str(page.position))
    assert texts(found) == ["1"] and found.missed == 0


async def test_now_is_what_comes(memory: Memory) -> None:
    await publish(memory, "c", "1")
    page = await memory.channels.read("c", after=NOW)
    await publish(memory, "c", "2")
    assert texts(page) == [] and texts(await memory.channels.read("c", after=str(page.position))) == ["2"]


async def test_a_publication_that_is_repeated_with_its_key_is_one(memory: Memory) -> None:
    first, repeated = await memory.channels.publish("c", message("1"), key="k")
    assert not repeated
    await publish(memory, "c", "2")
    assert await memory.channels.publish("c", message("1"), key="k") == (first, True)
    others = [message("2"), message("1", type="t"), message("1", metadata=Raw(b"{}"))]
    for other in others:
        with pytest.raises(KeyReused):
            await memory.channels.publish("c", other, key="k")
    assert (await memory.channels.publish("d", message("2"), key="k"))[1] is False
    assert (await memory.channels.publish("c", message("3", sender="b"), key="k"))[1] is False, "a key is its sender's"
    assert texts(await memory.channels.read("c")) == ["1", "2", "3"]


async def test_many_at_once_lose_and_double_nothing(memory: Memory) -> None:
    wanted = [str(n) for n in range(300)]
    positions = await asyncio.gather(*(publish(memory, "c", text) for text in wanted))
    page = await memory.channels.read("c", limit=1000)
    assert sorted(texts(page), key=int) == wanted
    assert [one.position for one in page.messages] == sorted(position for [position] in positions)


async def test_a_channel_keeps_so_many_and_says_what_was_missed(make_memory: MakeMemory) -> None:
    async with make_memory(channel_messages=5) as memory:
        positions = await publish(memory, "c", *"0123456789")
        page = await memory.channels.read("c")
        assert (texts(page), page.missed) == (list("56789"), 0)
        late = await memory.channels.read("c", after=str(positions[1]), limit=2)
        assert (texts(late), late.missed) == (["5", "6"], 3)
        assert (await memory.channels.read("c", after=str(late.position))).missed == 0
        assert (await memory.channels.read("c", after=str(positions[4]))).missed == 0
        start = str(Position(positions[0].shard, START))
        assert (await memory.channels.read("c", after=start)).missed == 5


async def test_a_channel_keeps_so_many_bytes(make_memory: MakeMemory) -> None:
    async with make_memory(channel_bytes=1000) as memory:
        for size in (400, 400, 190, 900, 50, 60, 940):
            await publish(memory, "c", f'"{"x" * (size - 2)}"')
        assert [len(text) for text in texts(await memory.channels.read("c"))] == [60, 940]


async def test_what_is_too_old_goes_with_the_next_and_all_of_it_in_the_end(
    make_memory: MakeMemory, stores: LocalStores
) -> None:
    async with make_memory() as memory, admin_redis(stores) as admin:
        stream, _, _ = keys_of(memory, "c")
        for n in range(40):
            await admin.xadd(stream, {"f": "a", "t": "1000", "y": "", "m": "", "p": f"{n}"}, id=f"0-{n + 1}")
        await publish(memory, "c", '"new"')
        assert texts(await memory.channels.read("c")) == ['"new"']
        assert 0 < await admin.pttl(stream) <= memory.settings.channel_age * 1000


async def test_a_channel_that_is_forgotten_begins_past_every_position_it_gave(
    make_memory: MakeMemory, stores: LocalStores
) -> None:
    async with make_memory() as memory:
        same = [f"c{n}" for n in range(100) if memory.settings.shard_of(f"c{n}") == memory.settings.shard_of("c")]
        positions = await publish(memory, "c", "1", "2", "3")
        stream, about, channels = keys_of(memory, "c")
        async with admin_redis(stores) as admin:
            await admin.zadd(channels, {"c": 1})
            await publish(memory, same[0], "x")
            assert await admin.exists(stream, about) == 0 and await admin.zscore(channels, "c") is None
        gone = await memory.channels.read("c", after=str(positions[0]))
        assert (gone.messages, gone.missed) == ([], 2)
        assert (await memory.channels.read("c", after=str(gone.position))).missed == 0
        assert (await memory.channels.read("c", after=str(positions[2]))).missed == 0
        with pytest.raises(PositionLost):
            await memory.channels.read("c", after=str(Position(positions[2].shard, positions[2].entry.next())))
        [anew] = await publish(memory, "c", "4")
        assert anew > positions[2]
        found = await memory.channels.read("c", after=str(positions[2]))
        assert (texts(found), found.missed) == (["4"], 0)
        assert (await memory.channels.read("c", after=str(positions[0]))).missed == 2


async def test_an_expired_stream_goes_on_where_it_was(memory: Memory, stores: LocalStores) -> None:
    positions = await publish(memory, "c", "1", "2")
    await memory.channels.take("c", group(), limit=1)
    stream, _, _ = keys_of(memory, "c")
    async with admin_redis(stores) as admin:
        await admin.delete(stream)
    late = await memory.channels.read("c", after=str(positions[0]))
    assert (late.messages, late.missed, late.position) == ([], 1, positions[1])
    assert (await memory.channels.read("c", after=str(positions[1]))).missed == 0
    [third] = await publish(memory, "c", "3")
    assert third > positions[1]
    taken = await memory.channels.take("c", group())
    assert (texts(taken), taken.missed) == (["3"], 1)


async def test_the_bytes_of_an_expired_stream_are_not_counted(make_memory: MakeMemory, stores: LocalStores) -> None:
    async with make_memory(channel_bytes=1000) as memory, admin_redis(stores) as admin:
        await publish(memory, "c", f'"{"x" * 898}"')
        await admin.delete(keys_of(memory, "c")[0])
        for _ in range(2):
            await publish(memory, "c", f'"{"y" * 98}"')
        assert len((await memory.channels.read("c")).messages) == 2


async def test_a_page_holds_so_many_bytes(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    await publish(memory, "c", *"12345")
    monkeypatch.setattr(channels, "_PAGE_BYTES", 2)
    page = await memory.channels.read("c")
    assert texts(page) == ["1", "2"]
    assert texts(await memory.channels.read("c", after=str(page.position))) == ["3", "4"]


async def test_the_highest_position_of_all_forgotten_channels_counts(memory: Memory, stores: LocalStores) -> None:
    same = [f"c{n}" for n in range(100) if memory.settings.shard_of(f"c{n}") == memory.settings.shard_of("c")]
    positions = await publish(memory, "c", "1", "2", "3")
    await publish(memory, same[0], "1")
    channels_key = keys_of(memory, "c")[2]
    async with admin_redis(stores) as admin:
        for name in ("c", same[0]):
            await admin.zadd(channels_key, {name: 1})
            await publish(memory, same[1], "x")
            assert await admin.zscore(channels_key, name) is None
    assert (await publish(memory, "c", "4"))[0] > positions[2]


async def test_positions_never_go_back_where_postgres_does(memory: Memory, stores: LocalStores) -> None:
    await publish(memory, "c", "1")
    async with admin_redis(stores) as admin:
        await admin.hset(keys_of(memory, "c")[1], "opening", 9)
    [second] = await publish(memory, "c", "2")
    assert second.entry.opening == 9


async def reopened(memory: Memory) -> None:
    """Wait until a message can be published again."""
    async with asyncio.timeout(60):
        while True:
            probe = await parts_of(memory).journal.probe(memory.settings.shard_of("c"))
            if probe.open:
                return
            await asyncio.sleep(0.01)


async def test_a_lost_tail_is_told_to_who_stood_in_it_and_its_positions_are_never_given_again(
    memory: Memory, stores: LocalStores
) -> None:
    """What a Redis comes to that went back in time: fewer messages, and a shard that is opened anew."""
    positions = await publish(memory, "c", "1", "2", "3", "4")
    stream, about, _ = keys_of(memory, "c")
    state = memory.settings.keys.state(positions[0].shard)
    async with admin_redis(stores) as admin:
        kept = await admin.xrange(stream, count=2)
        await admin.delete(stream)
        for entry, fields in kept:
            await admin.xadd(stream, fields, id=entry)
        await admin.hset(about, mapping={"number": positions[1].entry.sequence})
        await admin.hdel(state, "run", "opening")
    await reopened(memory)
    for lost in positions[2:]:
        with pytest.raises(PositionLost):
            await memory.channels.read("c", after=str(lost))
        with pytest.raises(PositionLost):
            await memory.channels.take("c", group(begin=str(lost)))
    assert texts(await memory.channels.read("c", after=str(positions[1]))) == []
    anew = await publish(memory, "c", "5", "6", "7")
    assert not set(anew) & set(positions) and anew[0] > positions[3]
    for lost in positions[2:]:
        with pytest.raises(PositionLost):
            await memory.channels.read("c", after=str(lost))
    assert texts(await memory.channels.read("c", after=str(positions[1]))) == ["5", "6", "7"]
    async with admin_redis(stores) as admin:
        await admin.xtrim(stream, minid=str(anew[0].entry), approximate=False)
    with pytest.raises(PositionLost):
        await memory.channels.read("c", after=str(positions[3]))


async def test_a_channel_that_redis_lost_whole_is_told(make_memory: MakeMemory, stores: LocalStores) -> None:
    async with make_memory(channel_messages=1) as memory, admin_redis(stores) as admin:
        positions = await publish(memory, "c", "1", "2")
        async for key in admin.scan_iter(match=memory.settings.keys.prefix + "*"):
            await admin.delete(key)
        await reopened(memory)
        for text in "3456":
            for lost in positions:
                with pytest.raises(PositionLost):
                    await memory.channels.read("c", after=str(lost))
            assert (await publish(memory, "c", text))[0] > positions[1]


async def test_a_clock_that_goes_back_changes_no_order(memory: Memory, stores: LocalStores) -> None:
    """Positions are made of no clock: an entry from the future precedes what is published after it."""
    [first] = await publish(memory, "c", "1")
    stream, about, _ = keys_of(memory, "c")
    async with admin_redis(stores) as admin:
        ahead = Position(first.shard, first.entry.next())
        fields = {"f": "a", "t": "9999999999999", "y": "", "m": "", "p": "2"}
        await admin.xadd(stream, fields, id=str(ahead.entry))
        await admin.hset(about, "number", ahead.entry.sequence)
    [third] = await publish(memory, "c", "3")
    assert first < ahead < third
    assert texts(await memory.channels.read("c")) == ["1", "2", "3"]


async def test_each_message_goes_to_one_consumer_and_is_acknowledged(memory: Memory) -> None:
    await publish(memory, "c", *"123456")
    pages = [await memory.channels.take("c", group(name), limit=2) for name in ("one", "two", "one")]
    assert [texts(page) for page in pages] == [["1", "2"], ["3", "4"], ["5", "6"]]
    assert {one.deliveries for page in pages for one in page.messages} == {1}
    assert texts(await memory.channels.take("c", group("three"))) == []
    assert [await acknowledge(memory, "c", page) for page in (*pages, pages[0])] == [2, 2, 2, 0]
    other = Group(name="h", consumer="one")
    assert len((await memory.channels.take("c", other)).messages) == 6


async def test_what_is_not_acknowledged_in_time_goes_to_another_and_is_counted(memory: Memory) -> None:
    await publish(memory, "c", *"123")
    first = await memory.channels.take("c", group("one"))
    await memory.channels.acknowledge("c", "g", [str(first.messages[1].position)])
    assert texts(await memory.channels.take("c", group("two"))) == []
    again = first
    for deliveries in (2, 3):
        again = await memory.channels.take("c", group("two", redeliver_after=0.0))
        assert texts(again) == ["1", "3"]
        assert [one.deliveries for one in again.messages] == [deliveries] * 2
    assert await acknowledge(memory, "c", again) == 2
    assert texts(await memory.channels.take("c", group("one", redeliver_after=0.0))) == []


async def test_redelivery_reaches_past_many_that_are_not_due(memory: Memory) -> None:
    await asyncio.gather(*(publish(memory, "c", str(n)) for n in range(500)))
    assert len((await memory.channels.take("c", group("one"), limit=1000)).messages) == 500
    taken: set[str] = set()
    for _ in range(10):
        page = await memory.channels.take("c", group("two", redeliver_after=0.0), limit=50)
        taken |= set(texts(page))
        await acknowledge(memory, "c", page)
    assert len(taken) == 500


async def test_a_group_is_told_what_retention_took_from_it(make_memory: MakeMemory) -> None:
    async with make_memory(channel_messages=3) as memory:
        await publish(memory, "c", *"12")
        assert texts(await memory.channels.take("c", group(), limit=1)) == ["1"]
        await publish(memory, "c", *"3456")
        page = await memory.channels.take("c", group(redeliver_after=0.0))
        # 1 was delivered and not acknowledged, 2 and 3 were never delivered.
        assert (texts(page), page.missed) == (["4", "5", "6"], 3)
        again = await memory.channels.take("c", group(redeliver_after=0.0))
        assert (texts(again), again.missed) == (["4", "5", "6"], 0)


@pytest.mark.parametrize(
    ("begin", "wanted"), [(BEGINNING, ["1", "2", "3"]), (NOW, ["3"]), ("1", ["2", "3"]), ("start", ["1", "2", "3"])]
)
async def test_a_new_group_begins_where_it_is_told(memory: Memory, begin: str, wanted: Sequence[str]) -> None:
    positions = await publish(memory, "c", "1", "2")
    given = {"1": str(positions[0]), "start": str(Position(positions[0].shard, START))}.get(begin, begin)
    first = await memory.channels.take("c", group(begin=given), limit=1)
    await publish(memory, "c", "3")
    rest = await memory.channels.take("c", group(begin=NOW))
    assert texts(first) + texts(rest) == wanted
    assert first.missed == rest.missed == 0


async def test_a_group_may_be_there_before_its_channel(memory: Memory) -> None:
    assert (await memory.channels.take("c", group(begin=NOW))).messages == []
    [channel] = await memory.channels.page()
    assert (channel.channel, channel.length) == ("c", 0)
    await publish(memory, "c", "1")
    page = await memory.channels.take("c", group(begin=NOW))
    assert (texts(page), page.missed) == (["1"], 0)


async def test_groups_are_ended_and_bounded(memory: Memory) -> None:
    await publish(memory, "c", "1")
    for n in range(64):
        await memory.channels.take("c", Group(name=f"g{n}", consumer="one"))
    with pytest.raises(InvalidInput, match="64 groups"):
        await memory.channels.take("c", group())
    assert await memory.channels.drop_group("c", "g0") is True
    assert await memory.channels.drop_group("c", "g0") is False
    assert texts(await memory.channels.take("c", group())) == ["1"]


async def test_consumers_that_hold_nothing_and_stay_away_are_forgotten(
    memory: Memory, stores: LocalStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(memory, "c", "1")
    await memory.channels.take("c", group("holder"))
    await memory.channels.take("c", group("idle"))
    stream, _, _ = keys_of(memory, "c")
    async with admin_redis(stores) as admin:
        assert {one["name"] for one in await admin.xinfo_consumers(stream, "g")} == {b"holder", b"idle"}
        monkeypatch.setattr(channels, "_CONSUMER_STAYS", -1.0)
        await memory.channels.take("c", group("new"))
        assert {one["name"] for one in await admin.xinfo_consumers(stream, "g")} == {b"holder", b"new"}
    monkeypatch.setattr(channels, "_MAX_CONSUMERS", 2)
    monkeypatch.setattr(channels, "_CONSUMER_STAYS", 600.0)
    with pytest.raises(InvalidInput, match="2 consumers"):
        await memory.channels.take("c", group("third"))
    assert texts(await memory.channels.take("c", group("new", redeliver_after=0.0))) == ["1"]


async def test_a_follower_wakes_for_a_message_of_any_sidecar(memory: Memory, make_memory: MakeMemory) -> None:
    async with make_memory(instance="two") as other:
        for publisher in (memory, other):
            page = await memory.channels.read("c", after=NOW)
            waiting = asyncio.create_task(memory.channels.read("c", after=str(page.position), wait=30.0))
            taking = asyncio.create_task(memory.channels.take("c", group(begin=NOW), wait=30.0))
            while sum(len(several) for several in memory.channels.followers._waiting.values()) < 2:
                await asyncio.sleep(0)
            await publish(publisher, "c", "1")
            assert texts(await waiting) == ["1"] and texts(await taking) == ["1"]
        assert memory.channels.followers._waiting == {}


async def test_waiting_ends_in_time_and_at_the_end(memory: Memory) -> None:
    assert texts(await memory.channels.read("c", wait=0.05)) == []
    waiting = asyncio.create_task(memory.channels.read("c", wait=30.0))
    while not memory.channels.followers._waiting:
        await asyncio.sleep(0)
    memory.channels.followers.stop()
    assert texts(await waiting) == []


async def test_so_many_may_wait(make_memory: MakeMemory) -> None:
    async with make_memory(followers=1) as memory:
        waiting = asyncio.create_task(memory.channels.read("c", wait=30.0))
        while not memory.channels.followers._waiting:
            await asyncio.sleep(0)
        with pytest.raises(TooManyFollowers):
            await memory.channels.read("c", wait=1.0)
        assert texts(await memory.channels.read("c")) == []
        waiting.cancel()
        await asyncio.wait({waiting})
        assert texts(await memory.channels.read("c", wait=0.01)) == []


async def test_channels_are_listed_by_name(memory: Memory) -> None:
    names = [f"c{n}" for n in range(9)]
    last = {name: (await publish(memory, name, "1", "2"))[1] for name in reversed(names)}
    found = await memory.channels.page()
    assert [(one.channel, one.length, one.position) for one in found] == [(name, 2, last[name]) for name in names]
    assert [one.channel for one in await memory.channels.page(after="c3", limit=2)] == ["c4", "c5"]


async def test_bad_input_is_refused_and_nothing_is_published(memory: Memory) -> None:
    one = memory.channels
    with pytest.raises(InvalidChannel):
        await one.publish("no/channel", message("1"))
    with pytest.raises(InvalidAgentId):
        await one.publish("c", message("1", sender=""))
    with pytest.raises(InvalidInput):
        await one.publish("c", message("1", metadata=Raw(b"[]")))
    with pytest.raises(TooLarge):
        await one.publish("c", message('"' + "x" * (256 << 10) + '"'))
    with pytest.raises(InvalidPosition):
        await one.read("c", after="yesterday")
    shard = (memory.settings.shard_of("c") + 1) % memory.settings.shards
    with pytest.raises(InvalidInput):
        await one.read("c", after=f"{shard}.1-1")
    with pytest.raises(PositionLost):
        await one.read("c", after=f"{memory.settings.shard_of('c')}.1-1")
    with pytest.raises(InvalidInput):
        await one.take("c", Group(name="a b", consumer="c"))
    with pytest.raises(InvalidInput):
        await one.take("c", Group(name="g", consumer=""))
    with pytest.raises(InvalidInput):
        await one.acknowledge("c", "g", ["-"])
    assert await one.page() == []
