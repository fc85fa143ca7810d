from __future__ import annotations

import asyncio

import pytest

from agentmemory_operator.kube import LEASE, KubeError
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
    assert DEADLINE < clock.now < DURATION


async def test_who_was_replaced_meanwhile_stops() -> None:
    kube, clock = FakeKube(), Clock()
    first = contend(kube, clock, "one")
    await first.acquire()
    kube.objects[LEASE.name, "system", "lease"]["spec"]["holderIdentity"] = "two"
    with pytest.raises(LostLease):
        await first.hold()
