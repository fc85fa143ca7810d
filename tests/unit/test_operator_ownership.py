"""What goes with an AgentMemory is what its deletion policy says last, though nothing else may be changed."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator import conditions
from agentmemory_operator.controller import Controller
from agentmemory_operator.finalize import FINALIZER
from agentmemory_operator.kube import AGENT_MEMORY, SECRET, STATEFUL_SET, Object
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.names import API_VERSION, KIND, RECONCILE_ANNOTATION
from agentmemory_operator.ownership import change_of
from agentmemory_operator.resources import redis
from agentmemory_operator.resources.common import Namespaces, meta
from agentmemory_operator.spec import AgentMemory, read
from agentmemory_operator.work import Work
from support.fake_kube import FakeKube
from support.operators import CONFIG, Clock

KEY = ("team", "research")
STORE = (STATEFUL_SET.name, "team", "research-redis")
LOGINS = (SECRET.name, "team", "research-credentials")


def body(policy: str = "Retain", **metadata: Any) -> Object:
    stores: Object = {"redis": {"managed": {}}, "postgres": {"managed": {}}}
    return {
        "apiVersion": API_VERSION, "kind": KIND, "spec": stores | {"deletionPolicy": policy},
        "metadata": {"name": "research", "namespace": "team", "uid": "u", "generation": 1, "resourceVersion": "1"}
        | metadata,
    }  # fmt: skip


def memory(policy: str) -> AgentMemory:
    return read(body(policy))


def secret(policy: str) -> Object:
    metadata = meta(memory(policy), "research-credentials", "credentials", owned=False)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}}


def stateful_set(policy: str) -> Object:
    made = redis.manifests(memory(policy), namespaces=Namespaces("system", "monitoring"))
    return next(one for one in made if one["kind"] == "StatefulSet")


@pytest.mark.parametrize("before", ["Retain", "Delete"])
@pytest.mark.parametrize("after", ["Retain", "Delete"])
def test_an_object_is_left_as_the_policy_says(before: str, after: str) -> None:
    for made in (secret, stateful_set):
        live = made(before)
        live["metadata"]["resourceVersion"] = "7"
        change = change_of(live, memory(after))
        assert bool(change) == (before != after)
        if change:
            assert (change["metadata"]["ownerReferences"] or []) == made(after)["metadata"].get("ownerReferences", [])
        if change and made is stateful_set:
            assert change["spec"] == {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": after}}


def test_other_owners_stay_and_a_former_memory_does_not() -> None:
    live = secret("Retain")
    certificate = {"kind": "Certificate", "name": "c", "uid": "c"}
    live["metadata"] |= {"resourceVersion": "7", "ownerReferences": [certificate, {"kind": KIND, "uid": "former"}]}
    assert change_of(live, memory("Retain"))["metadata"]["ownerReferences"] == [certificate]
    owners = change_of(live, memory("Delete"))["metadata"]["ownerReferences"]
    assert [one["uid"] for one in owners] == ["c", "u"]


class Life:
    """One AgentMemory in a cluster, with a store and logins that were made for it."""

    def __init__(self, policy: str) -> None:
        self.kube = FakeKube()
        self.put(body(policy))
        self.put(secret(policy))
        self.put(stateful_set(policy))

    def put(self, thing: Object) -> None:
        metadata = thing["metadata"]
        metadata |= {"uid": metadata.get("uid", metadata["name"]), "resourceVersion": "0", "generation": 1}
        self.kube.objects[thing["kind"], "team", metadata["name"]] = thing

    async def look(self) -> None:
        controller = Controller(self.kube, CONFIG, Metrics(), reconcile=_settled, clock=Clock())
        await controller.reconcile_once(KEY)

    @property
    def live(self) -> Object:
        return self.kube.objects[(AGENT_MEMORY.name, *KEY)]

    def edit(self, policy: str) -> None:
        self.live["spec"]["deletionPolicy"] = policy

    def delete(self) -> None:
        """As the API server does."""
        if self.live["metadata"].get("finalizers"):
            self.live["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00+00:00"
        else:
            self.kube.collect((AGENT_MEMORY.name, *KEY))


async def _settled(work: Work) -> bool:
    for kind in (*conditions.NEEDED, conditions.CONSOLIDATION):
        work.say(kind, "True", "Good")
    work.found[conditions.READY] = conditions.summarize(work.found)
    return False


@pytest.mark.parametrize("paused", [False, True])
async def test_retain_that_was_asked_for_last_keeps_all(paused: bool) -> None:
    """Whether or not the operator looked in between: it may have been down."""
    for looks in (0, 1):
        life = Life("Delete")
        await life.look()
        assert life.live["metadata"]["finalizers"] == [FINALIZER]
        if paused:
            life.live["metadata"]["annotations"] = {RECONCILE_ANNOTATION: "disabled"}
        life.edit("Retain")
        for _ in range(looks):
            await life.look()
            assert life.live["metadata"]["finalizers"] == [], "nothing has to wait any more"
        life.delete()
        await life.look()
        assert (AGENT_MEMORY.name, *KEY) not in life.kube.objects
        assert {STORE, LOGINS} <= set(life.kube.objects)


async def test_delete_that_was_asked_for_while_paused_takes_all() -> None:
    life = Life("Retain")
    life.live["metadata"]["annotations"] = {RECONCILE_ANNOTATION: "disabled"}
    life.edit("Delete")
    await life.look()
    life.delete()
    await life.look()
    assert not {place for place in life.kube.objects if place[0] != "Event"}


async def test_what_is_another_s_is_left_alone() -> None:
    life = Life("Delete")
    await life.look()
    foreign = life.kube.objects[LOGINS]
    foreign["metadata"]["labels"] = {}
    before = dict(foreign["metadata"])
    life.edit("Retain")
    await life.look()
    assert life.kube.objects[LOGINS]["metadata"] == before


@pytest.mark.parametrize("changed", [False, True])
async def test_what_a_former_memory_of_another_mode_left_does_not_go_with_this_one(changed: bool) -> None:
    """Unless it is this one's own, and the other mode only a change that is refused."""
    life = Life("Retain")
    life.live["spec"] |= {"mode": "Postgres", "redis": {}}
    applied = {"mode": "Hybrid", "redis": "Managed", "postgres": "Managed"} if changed else {"mode": "Postgres"}
    life.live["status"] = {"applied": applied}
    life.edit("Delete")
    await life.look()
    life.delete()
    await life.look()
    assert LOGINS not in life.kube.objects
    assert (STORE in life.kube.objects) is not changed
