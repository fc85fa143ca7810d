"""The cache of AgentMemories, against an API server that lists, watches and fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

import pytest

from agentmemory_operator.injector.api import ApiReader
from agentmemory_operator.injector.decision import Unreadable
from agentmemory_operator.injector.memories import Memories, Pauses
from agentmemory_operator.spec import AgentMemory
from support.injector import resource
from support.stub_kube_api import StubKubeApi

QUICK = Pauses(first=0.01, longest=0.05)


@pytest.fixture
async def kube() -> AsyncIterator[StubKubeApi]:
    async with StubKubeApi().serve() as kube:
        yield kube


@asynccontextmanager
async def following(
    kube: StubKubeApi, *namespaces: str, look_timeout: float = 60.0, pauses: Pauses = QUICK
) -> AsyncIterator[Memories]:
    async with kube.client() as client:
        memories = Memories(ApiReader(client), namespaces, pauses=pauses, look_timeout=look_timeout)
        task = asyncio.create_task(memories.run())
        try:
            yield memories
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def names(memories: Memories, namespace: str = "team") -> list[str]:
    return sorted(memories.known(namespace))


async def test_what_is_there_is_listed(kube: StubKubeApi) -> None:
    await kube.put(resource("a"))
    await kube.put(resource("b", sidecar={"port": 9000}))
    await kube.put(resource("c", namespace="elsewhere"))
    async with following(kube) as memories:
        assert not memories.synced
        assert memories.age == float("inf")
        await until(lambda: memories.synced)
        assert (names(memories), names(memories, "elsewhere"), names(memories, "third")) == (["a", "b"], ["c"], [])
        known = memories.known("team")["b"]
        assert isinstance(known, AgentMemory)
        assert known.spec.sidecar.port == 9000
        assert memories.age < 60
    assert kube.tokens == {"bearer t0k3n"}


async def test_what_changes_is_followed(kube: StubKubeApi) -> None:
    async with following(kube) as memories:
        await until(lambda: kube.watching == 1)
        await kube.put(resource("a"))
        await until(lambda: names(memories) == ["a"])
        await kube.put(resource("a", sidecar={"port": 9000}))
        await until(lambda: _port(memories, "a") == 9000)
        await kube.delete("team", "a")
        await until(lambda: names(memories) == [])
    assert kube.lists == [None]


def _port(memories: Memories, name: str) -> int | None:
    known = memories.known("team").get(name)
    return known.spec.sidecar.port if isinstance(known, AgentMemory) else None


async def test_only_the_namespaces_that_are_named(kube: StubKubeApi) -> None:
    await kube.put(resource("a"))
    await kube.put(resource("b", namespace="other"))
    await kube.put(resource("c", namespace="third"))
    async with following(kube, "team", "other") as memories:
        await until(lambda: memories.synced)
        assert (names(memories), names(memories, "other"), names(memories, "third")) == (["a"], ["b"], [])
        assert (memories.watches("team"), memories.watches("third")) == (True, False)
        await until(lambda: kube.watching == 2)
        await kube.put(resource("d", namespace="other"))
        await until(lambda: names(memories, "other") == ["b", "d"])
    assert set(kube.lists) == {"team", "other"}


async def test_a_broken_watch_is_continued_where_it_stood(kube: StubKubeApi) -> None:
    await kube.put(resource("a"))
    async with following(kube) as memories:
        await until(lambda: kube.watching == 1)
        kube.break_connections()
        await kube.put(resource("b"))
        await until(lambda: names(memories) == ["a", "b"])
    assert kube.lists == [None]


async def test_a_bookmark_says_where_to_continue(kube: StubKubeApi) -> None:
    async with following(kube) as memories:
        await until(lambda: kube.watching == 1)
        await kube.bookmark()
        await kube.put(resource("a"))
        await until(lambda: names(memories) == ["a"])
        kube.break_connections()
        await until(lambda: len(kube.watches) == 2)
    first, second = (version for _, version in kube.watches)
    assert second == first + 2
    assert kube.lists == [None]


@pytest.mark.parametrize("as_event", [False, True])
async def test_a_version_that_is_too_old_is_listed_anew(
    kube: StubKubeApi, as_event: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kube.gone_as_event = as_event
    await kube.put(resource("a"))
    await kube.put(resource("b"))
    async with following(kube) as memories:
        await until(lambda: kube.watching == 1)
        kube.down = True
        kube.break_connections()
        await until(lambda: kube.watching == 0)
        await kube.delete("team", "a")
        await kube.put(resource("c"))
        kube.compact()
        kube.down = False
        await until(lambda: names(memories) == ["b", "c"])
        await kube.put(resource("d"))
        await until(lambda: names(memories) == ["b", "c", "d"])
    assert kube.lists == [None, None]
    assert "Expired" in caplog.text


@pytest.mark.parametrize("trouble", ["down", "refuse"])
async def test_while_the_api_server_is_away_what_is_known_is_served(
    kube: StubKubeApi, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await kube.put(resource("a"))
    async with following(kube) as memories:
        await until(lambda: kube.watching == 1)
        setattr(kube, trouble, 503)
        kube.break_connections()
        await until(lambda: any("out of date" in one.message for one in caplog.records))
        assert names(memories) == ["a"]
        assert memories.synced
        setattr(kube, trouble, 0)
        await kube.put(resource("b"))
        await until(lambda: names(memories) == ["a", "b"])
        await until(lambda: any("current again" in one.message for one in caplog.records))


async def test_an_api_server_that_comes_late(kube: StubKubeApi) -> None:
    kube.refuse = 404
    await kube.put(resource("a"))
    async with following(kube) as memories:
        await until(lambda: bool(kube.tokens))
        assert not memories.synced
        assert names(memories) == []
        kube.refuse = 0
        await until(lambda: names(memories) == ["a"])
        assert memories.synced


class LongPauses(Pauses):
    asked: ClassVar[list[int]] = []

    def after(self, failures: int) -> float:
        self.asked.append(failures)
        return 3600.0


async def test_a_watch_that_ends_at_once_is_not_asked_without_end(kube: StubKubeApi) -> None:
    kube.silent = True
    async with following(kube, pauses=LongPauses()) as memories:
        await until(lambda: bool(LongPauses.asked))
        assert memories.synced
    assert LongPauses.asked == [1]
    assert len(kube.watches) == 1


async def test_a_watch_that_says_nothing_is_left_and_continued(
    kube: StubKubeApi, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection may be a dead one; then no event would ever arrive."""
    async with kube.client() as client:
        memories = Memories(ApiReader(client, silence=0.05), pauses=QUICK)
        task = asyncio.create_task(memories.run())
        await until(lambda: len(kube.watches) > 2)
        await kube.put(resource("a"))
        await until(lambda: names(memories) == ["a"])
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert kube.lists == [None]
    assert caplog.records == []


async def test_what_is_not_understood_is_listed_anew(kube: StubKubeApi, caplog: pytest.LogCaptureFixture) -> None:
    async with following(kube) as memories:
        await until(lambda: kube.watching == 1)
        await kube.garble()
        await until(lambda: len(kube.lists) == 2)
        await kube.put(resource("a"))
        await until(lambda: names(memories) == ["a"])
    assert any("not understood" in one.message for one in caplog.records)


async def test_a_memory_that_cannot_be_read_is_known_as_such(kube: StubKubeApi) -> None:
    await kube.put(resource("a", shards="many"))
    await kube.put(resource("b"))
    async with following(kube) as memories:
        await until(lambda: memories.synced)
        broken = memories.known("team")["a"]
        assert isinstance(broken, Unreadable)
        assert broken.name == "a"
        assert "shards" in broken.message
        assert isinstance(memories.known("team")["b"], AgentMemory)
        await until(lambda: kube.watching == 1)
        await kube.put(resource("a"))
        await until(lambda: isinstance(memories.known("team")["a"], AgentMemory))


async def test_a_look_sees_what_no_watch_has_told_yet(kube: StubKubeApi) -> None:
    async with kube.client() as client:
        memories = Memories(ApiReader(client), look_timeout=60.0)
        await kube.put(resource("a"))
        await kube.put(resource("b", namespace="other"))
        assert sorted(await memories.look("team")) == ["a"]
        assert memories.known("team") == {}
    assert kube.lists == ["team"]


@pytest.mark.parametrize(("trouble", "value"), [("hang", True), ("down", True), ("refuse", 500)])
async def test_a_look_is_bounded_and_falls_back_on_what_is_known(
    kube: StubKubeApi, trouble: str, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    await kube.put(resource("a"))
    async with following(kube, look_timeout=0.05) as memories:
        await until(lambda: memories.synced)
        setattr(kube, trouble, value)
        assert sorted(await memories.look("team")) == ["a"]
    assert any("direct look" in one.message for one in caplog.records)


def test_pauses_grow_to_their_longest() -> None:
    pauses = Pauses(first=1.0, longest=10.0)
    for failures, full in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (10_000, 10.0)):
        assert full / 2 <= pauses.after(failures) <= full


async def test_age_is_that_of_the_oldest_watch(kube: StubKubeApi) -> None:
    now = 100.0
    async with kube.client() as client:
        memories = Memories(ApiReader(client), ("a", "b"), clock=lambda: now)
        task = asyncio.create_task(memories.run())
        await until(lambda: kube.watching == 2)
        await until(lambda: memories.age == 0.0)
        now = 130.0
        assert memories.age == 30.0
        await kube.put(resource("x", namespace="a"))
        await until(lambda: names(memories, "a") == ["x"])
        assert memories.age == 30.0
        await kube.put(resource("x", namespace="b"))
        await until(lambda: memories.age == 0.0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
