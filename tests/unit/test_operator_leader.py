from __future__ import annotations

import asyncio

import pytest

from agentmemory_operator.kube import LEASE, Kind, KubeError, Object
from agentmemory_operator.leader import DEADLINE, DURATION, PERIOD, Leader, LostLease
from support.fake_kube import FakeKube


class Clock:
    """Sleeping is all that makes time pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def contend(kube: FakeKube, clock: Clock, identity: str) -> Leader:
    return Leader(kube, namespace="system", name="lease", identity=identity, clock=clock, sleep=clock.sleep)


def holder(kube: FakeKube) -> str:
    return str(kube.objects[LEASE.name, "system", "lease"]["spec"]["holderIdentity"])


async def test_the_first_one_leads() -> None:
    kube, clock = FakeKube(), Clock()
    await contend(kube, clock, "one").acquire()
    assert (holder(kube), clock.now) == ("one", 0.0)


async def test_a_silent_leader_is_followed_after_its_time() -> None:
    kube, clock = FakeKube(), Clock()
    await contend(kube, clock, "one").acquire()
    await contend(kube, clock, "two").acquire()
    assert holder(kube) == "two"
    assert DURATION < clock.now <= DURATION + 2 * PERIOD


async def test_one_that_renews_is_not_replaced() -> None:
    kube, clock = FakeKube(), Clock()
    first = contend(kube, clock, "one")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(contend(kube, clock, "two").acquire())
    while clock.now < 10 * DURATION:
        await asyncio.sleep(0)
    assert not waiting.done()
    assert holder(kube) == "one"
    for task in (holding, waiting):
        task.cancel()
    await asyncio.gather(holding, waiting, return_exceptions=True)


async def test_a_leader_that_ends_in_good_order_is_followed_at_once() -> None:
    kube, clock = FakeKube(), Clock()
    first = contend(kube, clock, "one")
    await first.acquire()
    await first.release()
    await contend(kube, clock, "two").acquire()
    assert (holder(kube), clock.now) == ("two", 0.0)


async def test_who_does_not_lead_releases_nothing() -> None:
    kube, clock = FakeKube(), Clock()
    await contend(kube, clock, "one").acquire()
    await contend(kube, clock, "two").release()
    assert holder(kube) == "one"


async def test_a_leader_that_cannot_renew_stops_before_another_begins() -> None:
    kube, clock = FakeKube(), Clock()
    first = contend(kube, clock, "one")
    await first.acquire()

    def unreachable(verb: str, kind: str) -> None:
        raise KubeError(0, "Unreachable", "no answer")

    kube.before = unreachable
    with pytest.raises(LostLease):
        await first.hold()
    assert DEADLINE <= clock.now < DURATION


async def test_who_was_replaced_meanwhile_stops() -> None:
    kube, clock = FakeKube(), Clock()
    first = contend(kube, clock, "one")
    await first.acquire()
    kube.objects[LEASE.name, "system", "lease"]["spec"]["holderIdentity"] = "two"
    with pytest.raises(LostLease):
        await first.hold()


class SilentKube(FakeKube):
    """An API server that gives no answer any more once it is told to be silent, and refuses nothing either."""

    silent = False

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        if self.silent:
            await asyncio.Event().wait()
        return await super().get(kind, namespace, name)


async def test_a_leader_that_gets_no_answer_at_all_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmemory_operator.leader.DEADLINE", 0.05)
    monkeypatch.setattr("agentmemory_operator.leader.PERIOD", 0.001)
    kube = SilentKube()
    leader = Leader(kube, namespace="system", name="lease", identity="one")
    await leader.acquire()
    kube.silent = True
    async with asyncio.timeout(10):
        with pytest.raises(LostLease):
            await leader.hold()


class SlowKube(FakeKube):
    """An API server that writes at once, and says so late."""

    def __init__(self, clock: Clock, late: float) -> None:
        super().__init__()
        self._clock = clock
        self.late = late

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object, part: str = "") -> Object:
        answer = await super().patch(kind, namespace, name, body, part)
        self._clock.now += self.late
        return answer


async def test_a_renewal_counts_from_when_it_was_asked_for() -> None:
    """The others count from when they see it, which is not when its answer came."""
    clock = Clock()
    kube = SlowKube(clock, late=DEADLINE)
    leader = contend(kube, clock, "one")
    await leader.acquire()
    with pytest.raises(LostLease):
        await leader.hold()
    assert clock.now <= 2 * DEADLINE
