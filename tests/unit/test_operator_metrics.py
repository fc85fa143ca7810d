from __future__ import annotations

from typing import Any

from agentmemory_operator import conditions
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.spec import read
from agentmemory_operator.work import Memo, Work
from support.fake_kube import FakeKube
from support.operators import CONFIG


def looked_at(mode: str, **stores: Any) -> Work:
    metadata = {"name": "research", "namespace": "team", "uid": "u", "generation": 1}
    work = Work(read({"metadata": metadata, "spec": {"mode": mode} | stores}), FakeKube(), CONFIG, Memo())
    for kind in (*conditions.needed(work.stores), conditions.CONSOLIDATION):
        work.say(kind, "False", "Why")
    return work


def test_a_memory_made_anew_in_another_mode_has_no_condition_of_the_former_one() -> None:
    """The operator may not have seen that the former one was gone."""
    metrics = Metrics()
    metrics.observed(looked_at("Hybrid", redis={"managed": {}}, postgres={"managed": {}}))
    metrics.observed(looked_at("Redis", redis={"managed": {}}))
    labels = {"namespace": "team", "agentmemory": "research"}
    told = {
        kind: metrics.registry.get_sample_value("agentmemory_condition", labels | {"type": kind})
        for kind in conditions.NEEDED
    }
    assert told == {
        conditions.REDIS: 0.0, conditions.CREDENTIALS: 0.0, conditions.POSTGRES: None, conditions.SCHEMA: None,
    }  # fmt: skip
