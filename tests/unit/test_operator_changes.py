from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator import conditions, events
from agentmemory_operator.changes import facts_of, find_unserved, refusals
from agentmemory_operator.conditions import Condition
from agentmemory_operator.errors import Refused
from agentmemory_operator.spec import AgentMemory, read
from agentmemory_operator.status import compose, differs
from agentmemory_operator.work import Memo, Work
from support.fake_kube import FakeKube
from support.operators import CONFIG, Clock


def memory(status: dict[str, Any] | None = None, **spec: Any) -> AgentMemory:
    stores: dict[str, Any] = {"redis": {"managed": {}}, "postgres": {"managed": {}}}
    return read({
        "metadata": {"name": "research", "namespace": "team", "uid": "u", "generation": 3},
        "spec": stores | spec, "status": status or {},
    })  # fmt: skip


def work(status: dict[str, Any] | None = None) -> Work:
    one = Work(memory(status), FakeKube(), CONFIG, Memo(), clock=Clock())
    one.found = {kind: Condition(kind, "True", "Good") for kind in (*conditions.NEEDED, conditions.CONSOLIDATION)}
    one.found[conditions.READY] = conditions.summarize(one.found)
    return one


def test_a_memory_that_was_never_applied_may_be_anything() -> None:
    assert refusals(memory(shards=8)) == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"shards": 8}, "ShardsChanged"), ({"mode": "Redis", "postgres": {}}, "ModeChanged"),
        ({"redis": {"external": {"host": "h", "secretRef": {"name": "s"}}}}, "RedisChanged"),
        ({"postgres": {"external": {"host": "h", "secretRef": {"name": "s"}}}}, "PostgresChanged"),
    ],
)  # fmt: skip
def test_what_cannot_change(spec: dict[str, Any], reason: str) -> None:
    applied = {"applied": facts_of(memory())}
    assert refusals(memory(applied)) == []
    assert [fault.reason for fault in refusals(memory(applied, **spec))][:1] == [reason]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"mode": "Redis", "postgres": {}}, "ModeNotServed"),
    ],
)  # fmt: skip
def test_what_this_version_does_not_serve(spec: dict[str, Any], reason: str) -> None:
    fault = find_unserved(memory(**spec).spec)
    assert fault is not None and fault.reason == reason
    assert find_unserved(memory().spec) is None


def test_embeddings_can_change_and_so_can_a_memory_of_before() -> None:
    before = {"applied": facts_of(memory()) | {"provider": "OpenAI", "model": "mistyped", "dimensions": 512}}
    for embedding in (
        {"provider": "OpenAI", "model": "small", "dimensions": 1536}, {"provider": "Local"}, {"provider": "None"},
        {"provider": "Local", "path": "/models/e5", "dimensions": 768},
    ):  # fmt: skip
        assert refusals(memory(before, embedding=embedding)) == []
        assert find_unserved(memory(embedding=embedding).spec) is None


def test_what_can_change() -> None:
    applied = {"applied": facts_of(memory())}
    assert refusals(memory(applied, workingMemory={"ttl": "2h"}, retention={"events": "90d"})) == []


def test_the_time_of_looking_alone_is_not_written() -> None:
    old = {"phase": "Ready", "consolidation": {"pending": 0, "observedAt": "2026-11-24T12:00:00Z"}}
    assert not differs(old, {"consolidation": {"pending": 0, "observedAt": "2026-11-24T13:00:00Z"}})
    assert differs(old, {"consolidation": {"pending": 1, "observedAt": "2026-11-24T12:00:00Z"}})
    assert differs({}, {"phase": "Ready"})


def test_what_cannot_be_seen_is_taken_away() -> None:
    seen = work()
    seen.status = {"consolidation": {"pending": 7, "lagSeconds": 1.0}, "redis": {"persistence": "none"}}
    assert compose(seen)["consolidation"]["pending"] == 7
    unseen = compose(work())
    assert unseen["consolidation"] == {"lagSeconds": None, "lagRatio": None, "pending": None, "deadLetters": None}
    assert unseen["redis"] == {"version": None, "persistence": "Unknown"}


def test_what_is_refused_is_not_noted_as_applied() -> None:
    one = work()
    assert compose(one)["applied"] == facts_of(one.memory)
    one.refused.append(Refused("ShardsChanged", "no"))
    assert "applied" not in compose(one)


def test_events_are_about_what_a_person_wants_to_know() -> None:
    changed = [
        Condition(conditions.READY, "False", "LoginRefused", "correct the password"),
        Condition(conditions.REDIS, "False", "LoginRefused", "correct the password"),
        Condition(conditions.PROGRESSING, "True", "Reconciling", "it starts"),
        Condition(conditions.PROGRESSING, "False", "ShardsChanged", "set it back"),
    ]
    one = memory()
    told = events.of_transitions(one.raw, changed, instance="operator-0", now=Clock()())
    assert [(event["reason"], event["action"], event["type"]) for event in told] == [
        ("LoginRefused", "Observe", "Warning"), ("ShardsChanged", "Reconcile", "Warning"),
    ]  # fmt: skip
    assert all(event["regarding"]["kind"] == "AgentMemory" for event in told)


def test_a_finding_that_is_false_is_not_mended_by_a_later_step() -> None:
    one = work()
    one.found = {}
    one.say(conditions.REDIS, "False", "Starting")
    one.say(conditions.REDIS, "True", "Serving")
    assert one.found[conditions.REDIS].reason == "Starting"
