"""A pooler that is switched off serves on until nobody goes through it any more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentmemory_engine.redis import Credentials
from agentmemory_operator.errors import Waiting
from agentmemory_operator.kube import CONFIG_MAP, DEPLOYMENT, POD, SECRET, SERVICE, Object
from agentmemory_operator.names import API_VERSION, KIND, SIDECAR_LABEL
from agentmemory_operator.pooling import RETIRED_ANNOTATION, TOLD, tend_pooler
from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.spec import read
from agentmemory_operator.work import Access, Memo, Work, stamp
from support.fake_kube import FakeKube
from support.operators import CONFIG, Clock

PLACE = (DEPLOYMENT.name, "team", "research-pooler")


class Life:
    """A memory whose pooler runs."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.clock = Clock()
        self.told = False
        """Whether the sidecars' configuration names the pooler."""

    async def look(self, *, enabled: bool, frozen: bool = False) -> Work:
        stores: Object = {"redis": {"managed": {}}, "postgres": {"managed": {}, "pooler": {"enabled": enabled}}}
        metadata = {"name": "research", "namespace": "team", "uid": "u", "generation": 1}
        memory = read({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": stores})
        work = Work(memory, self.kube, CONFIG, Memo(), clock=self.clock)
        work.postgres = Access(StoreAddress("postgres", 5432, True, "agentmemory"), Credentials("postgres", "x"))
        work.logins = {f"{store}-{part}": "a_1" for store in ("redis", "postgres") for part in ("username", "password")}
        if PLACE in self.kube.objects:
            self.kube.objects[PLACE]["status"] = {"availableReplicas": 2}
        config = {"agentmemory.yaml": "host: research-pooler.team.svc" if self.told else "host: postgres"}
        metadata = {"name": "research-sidecar", "namespace": "team", "uid": "s"}
        self.kube.objects[CONFIG_MAP.name, "team", "research-sidecar"] = {"metadata": metadata, "data": config}
        if frozen:
            with work.looking_only():
                await tend_pooler(work)
        else:
            await tend_pooler(work)
        return work

    async def start(self) -> None:
        with pytest.raises(Waiting, match="no pod that answers yet"):
            await self.look(enabled=True)
        assert (await self.look(enabled=True)).pooler is not None

    def agent(self, name: str) -> None:
        """A pod with a sidecar, made now."""
        metadata = {"name": name, "namespace": "team", "labels": {SIDECAR_LABEL: "research"}, "uid": name,
                    "creationTimestamp": stamp(self.clock())}  # fmt: skip
        self.kube.objects[POD.name, "team", name] = {"metadata": metadata, "status": {"phase": "Running"}}

    def gone(self, name: str) -> None:
        del self.kube.objects[POD.name, "team", name]

    def runs(self) -> bool:
        return PLACE in self.kube.objects


async def test_without_agents_it_goes_once_none_can_be_told_of_it_any_more() -> None:
    life = Life()
    await life.start()
    life.told = True
    await life.look(enabled=False)
    life.clock.now += 10 * TOLD
    await life.look(enabled=False)
    assert life.runs(), "as long as new pods are given its address, whatever keeps the configuration from being written"
    life.told = False
    await life.look(enabled=False)
    assert life.runs()
    life.clock.now += TOLD + timedelta(seconds=1)
    await life.look(enabled=False)
    assert not life.runs()
    assert (SERVICE.name, "team", "research-pooler") not in life.kube.objects
    before = life.kube.writes
    await life.look(enabled=False)
    assert life.kube.writes == before


async def test_it_stays_for_the_pods_that_were_told_of_it() -> None:
    life = Life()
    await life.start()
    life.agent("before")
    work = await life.look(enabled=False)
    assert life.runs()
    assert work.pooler is None, "new ones go to Postgres itself"
    life.clock.now += TOLD
    life.agent("may-have-been-told")
    life.clock.now += timedelta(seconds=1)
    life.agent("after")
    assert "2 pods" in (await life.look(enabled=False)).now_pending[0]
    life.gone("before")
    await life.look(enabled=False)
    assert life.runs()
    life.gone("may-have-been-told")
    await life.look(enabled=False)
    assert not life.runs()


async def test_it_stays_as_it_was_while_it_stays() -> None:
    life = Life()
    await life.start()
    life.agent("before")
    life.kube.objects[PLACE]["spec"]["replicas"] = 7
    await life.look(enabled=False)
    assert life.kube.objects[PLACE]["spec"]["replicas"] == 7, "what is declared by now is not what it was declared as"


async def test_it_takes_new_logins_while_it_stays() -> None:
    life = Life()
    await life.start()
    life.agent("before")
    await life.look(enabled=False)
    del life.kube.objects[SECRET.name, "team", "research-pooler"]
    await life.look(enabled=False)
    assert (SECRET.name, "team", "research-pooler") in life.kube.objects


async def test_switched_on_again_it_is_as_before() -> None:
    life = Life()
    await life.start()
    life.agent("before")
    await life.look(enabled=False)
    assert RETIRED_ANNOTATION in life.kube.objects[PLACE]["metadata"]["annotations"]
    assert (await life.look(enabled=True)).pooler is not None
    assert RETIRED_ANNOTATION not in life.kube.objects[PLACE]["metadata"]["annotations"]


async def test_a_pause_leaves_it_alone() -> None:
    life = Life()
    await life.start()
    before = life.kube.writes
    await life.look(enabled=False, frozen=True)
    assert (life.runs(), life.kube.writes) == (True, before)


async def test_another_s_deployment_of_that_name_is_nothing_of_ours() -> None:
    life = Life()
    life.kube.objects[PLACE] = {"metadata": {"name": "research-pooler", "namespace": "team", "uid": "theirs"}}
    await life.look(enabled=False)
    assert life.runs()
