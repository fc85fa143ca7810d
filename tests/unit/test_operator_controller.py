from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from agentmemory_operator import conditions
from agentmemory_operator.conditions import Condition
from agentmemory_operator.controller import _AT_ONCE, Controller, Key
from agentmemory_operator.errors import Waiting
from agentmemory_operator.kube import AGENT_MEMORY, KubeError
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.work import Work
from support.fake_kube import FakeKube
from support.operators import CONFIG, Clock

KEY: Key = ("team", "research")


class Steps:
    """Stands for the steps; a look waits for `gate`."""

    def __init__(self) -> None:
        self.looks = 0
        self.at_once = 0
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Exception | None = None
        self.blocked = False

    async def __call__(self, work: Work) -> bool:
        self.looks += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            if self.fail is not None:
                raise self.fail
        finally:
            self.at_once -= 1
        work.found = {kind: Condition(kind, "True", "Good") for kind in conditions.NEEDED}
        work.found[conditions.READY] = conditions.summarize(work.found)
        return self.blocked


def put(kube: FakeKube, *, name: str = KEY[1], **spec: object) -> None:
    kube.objects[AGENT_MEMORY.name, KEY[0], name] = {
        "apiVersion": AGENT_MEMORY.api_version, "kind": AGENT_MEMORY.name,
        "metadata": {"name": name, "namespace": KEY[0], "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}} | spec,
    }  # fmt: skip


@pytest.fixture
def kube() -> FakeKube:
    kube = FakeKube()
    put(kube)
    return kube


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def controller(kube: FakeKube, steps: Steps) -> Controller:
    return Controller(kube, CONFIG, Metrics(), reconcile=steps, clock=Clock())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def running(controller: Controller) -> Callable[[], Awaitable[None]]:
    """Runs it; the answer stops it."""
    task = asyncio.create_task(controller.run())

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return stop


async def test_what_is_listed_is_looked_at(controller: Controller, kube: FakeKube, steps: Steps) -> None:
    stop = await running(controller)
    await until(lambda: "status" in kube.objects[AGENT_MEMORY.name, *KEY])
    assert kube.objects[AGENT_MEMORY.name, *KEY]["status"]["phase"] == "Ready"
    await stop()
    assert steps.looks == 1


async def test_never_two_looks_at_one_memory_and_none_forgotten(controller: Controller, steps: Steps) -> None:
    steps.gate.clear()
    controller.nudge(KEY)
    await until(lambda: steps.looks == 1)
    for _ in range(5):
        controller.nudge(KEY)
    steps.gate.set()
    await until(lambda: steps.looks == 2)
    assert steps.most_at_once == 1
    stop = await running(controller)
    await stop()


async def test_a_memory_that_is_gone_is_forgotten_and_found_again(
    controller: Controller, kube: FakeKube, steps: Steps
) -> None:
    gone = kube.objects.pop((AGENT_MEMORY.name, *KEY))
    controller.nudge(KEY)
    await until(lambda: ("get", AGENT_MEMORY.name) in kube.calls)
    kube.objects[AGENT_MEMORY.name, *KEY] = gone
    await until(lambda: not controller.tended)
    controller.nudge(KEY)
    await until(lambda: steps.looks == 1)
    stop = await running(controller)
    await stop()


@pytest.mark.parametrize(
    "failure", [KubeError(0, "Unreachable", "no answer"), Waiting("BeingDeleted", "it goes"), RuntimeError("a defect")]
)
async def test_a_failure_writes_nothing_and_is_tried_again(
    controller: Controller, kube: FakeKube, steps: Steps, failure: Exception
) -> None:
    steps.fail = failure
    assert await controller.look(KEY) is not None
    assert kube.writes == 0
    steps.fail = None
    await controller.look(KEY)
    assert kube.objects[AGENT_MEMORY.name, *KEY]["status"]["phase"] == "Ready"


async def test_the_pause_grows_while_it_is_blocked_and_is_over_with_it(controller: Controller, steps: Steps) -> None:
    steps.blocked = True
    pauses = [await controller.look(KEY) or 0.0 for _ in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1] <= CONFIG.resync
    steps.blocked = False
    await controller.look(KEY)
    steps.blocked = True
    assert await controller.look(KEY) == pauses[0]


async def test_a_spec_that_cannot_be_read_is_said(controller: Controller, kube: FakeKube, steps: Steps) -> None:
    put(kube, shards="many")
    await controller.look(KEY)
    said = kube.objects[AGENT_MEMORY.name, *KEY]["status"]["conditions"][0]
    assert (said["type"], said["status"], said["reason"]) == ("Ready", "False", "InvalidSpec")
    assert "spec.shards" in said["message"]
    assert steps.looks == 0
    before = kube.writes
    await controller.look(KEY)
    assert kube.writes == before


async def test_events_are_told_when_something_changed(controller: Controller, kube: FakeKube) -> None:
    await controller.look(KEY)
    await controller.look(KEY)
    told = [one for (kind, _, _), one in kube.objects.items() if kind == "Event"]
    assert [one["reason"] for one in told] == ["AsDeclared"]


async def test_memories_whose_stores_do_not_answer_hold_up_nobody_else(
    kube: FakeKube, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are turns; a first look, which nothing is known of, is slow for all."""
    silent = [("team", f"silent-{number}") for number in range(20)]
    controller = Controller(kube, CONFIG, Metrics(), reconcile=steps, clock=Clock())
    for key in silent:
        put(kube, name=key[1])
    monkeypatch.setattr("agentmemory_operator.controller._SLOW", -1.0)
    for key in silent:
        await controller.look(key)
    steps.gate.clear()
    for key in silent:
        controller.nudge(key)
    await until(lambda: steps.at_once == _AT_ONCE)
    controller.nudge(KEY)
    await until(lambda: steps.at_once == _AT_ONCE + 1)
    steps.gate.set()
    stop = await running(controller)
    await stop()


async def test_a_namespace_that_is_gone_keeps_nobody_from_the_others(kube: FakeKube, steps: Steps) -> None:
    refusals = [KubeError(403, "Forbidden", "agentmemories is forbidden")]

    def refuse_first(verb: str, kind: str) -> None:
        if verb == "list" and refusals:
            raise refusals.pop()

    kube.before = refuse_first
    controller = Controller(
        kube, replace(CONFIG, watch_namespaces=("gone", KEY[0])), Metrics(), reconcile=steps, clock=Clock()
    )
    await controller.list_all()
    assert controller.tended == [KEY]
    assert controller.last_listed is not None, "no restart would bring the right back"
    listed = controller.last_listed
    refusals.append(KubeError(0, "Unreachable", "no answer"))
    await controller.list_all()
    assert controller.last_listed == listed
