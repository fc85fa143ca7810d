from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from agentmemory_operator import conditions, events
from agentmemory_operator.changes import facts_of, find_unserved, refusals, with_applied_stores
from agentmemory_operator.conditions import Condition
from agentmemory_operator.errors import Refused
from agentmemory_operator.reconcile import _conclude
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


def test_what_this_version_does_not_serve() -> None:
    hnsw = {"recall": {"index": {"kind": "HNSW"}}}
    for mode, spec in MODES.items():
        assert find_unserved(memory(**spec).spec) is None
        fault = find_unserved(memory(**spec, **hnsw).spec)
        assert (None if fault is None else fault.reason) == ("IndexNotServed" if mode == "Redis" else None)


MANAGED: dict[str, Any] = {"managed": {"image": "mine"}}
EXTERNAL: dict[str, Any] = {"external": {"host": "h", "secretRef": {"name": "s"}}}
MODES: dict[str, dict[str, Any]] = {
    "Hybrid": {"mode": "Hybrid", "redis": MANAGED, "postgres": MANAGED},
    "Redis": {"mode": "Redis", "redis": MANAGED, "postgres": {}},
    "Postgres": {"mode": "Postgres", "redis": {}, "postgres": MANAGED},
}


@pytest.mark.parametrize(("before", "after"), list(permutations(MODES, 2)))
def test_the_mode_of_a_memory_that_is_there_cannot_change(before: str, after: str) -> None:
    """And what runs is known all the same: the mode, and the stores of that mode."""
    applied = {"applied": facts_of(memory(**MODES[before]))}
    changed = memory(applied, **MODES[after])
    (refusal,) = refusals(changed)
    assert refusal.reason == "ModeChanged"
    assert f"from {before} to {after}" in str(refusal)
    running = with_applied_stores(changed).spec
    assert (running.mode, running.stores) == (before, memory(**MODES[before]).spec.stores)
    given = {"redis": running.redis.managed, "postgres": running.postgres.managed}
    assert tuple(store for store, managed in given.items() if managed is not None) == running.stores


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_an_external_store_that_the_spec_lost_with_its_mode_is_where_it_was(store: str) -> None:
    hybrid = memory(**MODES["Hybrid"] | {store: EXTERNAL})
    applied = {
        "applied": facts_of(hybrid) | {"external": {store: msgspec.to_builtins(getattr(hybrid.spec, store).external)}}
    }
    other = MODES["Redis" if store == "postgres" else "Postgres"]
    running = with_applied_stores(memory(applied, **other)).spec
    assert running == replace(
        hybrid.spec, **{one: getattr(running, one) for one in ("redis", "postgres") if one != store}
    )


@pytest.mark.parametrize("mode", MODES)
def test_operator_and_engine_agree_on_the_stores_of_a_mode(mode: str) -> None:
    one = Work(memory(**MODES[mode]), FakeKube(), CONFIG, Memo(), clock=Clock())
    assert one.settings.mode == mode
    assert one.settings.stores == one.stores
    assert set(one.stores) <= set(facts_of(one.memory))
    assert {"redis", "postgres"} & set(facts_of(one.memory)) == set(one.stores)


@pytest.mark.parametrize("mode", MODES)
def test_the_status_says_nothing_of_a_store_that_is_not_used(mode: str) -> None:
    one = Work(memory(**MODES[mode]), FakeKube(), CONFIG, Memo(), clock=Clock())
    _conclude(one, paused=False)
    said = compose(one)
    assert {"redis", "postgres"} & set(said) == set(one.stores)
    kinds = {condition["type"] for condition in said["conditions"]}
    of_stores = {"redis": {conditions.REDIS}, "postgres": {conditions.POSTGRES, conditions.SCHEMA}}
    for store, own in of_stores.items():
        assert own & kinds == (own if store in one.stores else set())
    assert {conditions.READY, conditions.CREDENTIALS, conditions.CONSOLIDATION} <= kinds


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
