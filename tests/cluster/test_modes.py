"""Memories with one store: only that one is made; agents write, lose their pod and remember; the mode stays."""

from __future__ import annotations

import pytest

from support.cluster import (
    Agent,
    Object,
    apply,
    conditions,
    kill_pod,
    memory_manifest,
    secret,
    settled,
    status_of,
    verify,
    wait_condition,
    wait_for,
)
from support.edits import edit
from support.kubectl import kubectl, kubectl_json

pytestmark = pytest.mark.cluster

UNUSED = {"Redis": "postgres", "Postgres": "redis"}
NAMES = {"Redis": "fast", "Postgres": "plain"}
"""Of the memories, by mode."""
OF_STORE = {"redis": {"RedisReady"}, "postgres": {"PostgresReady", "SchemaReady"}}
MADE = "statefulsets,services,networkpolicies,poddisruptionbudgets,secrets,persistentvolumeclaims,configmaps"


def manifest_of(namespace: str, mode: str) -> Object:
    manifest = memory_manifest(namespace, NAMES[mode], mode=mode, deletionPolicy="Delete")
    del manifest["spec"][UNUSED[mode]]
    return manifest


def made_for(namespace: str, name: str) -> set[str]:
    """The names of what was made for a memory."""
    found = kubectl_json("get", MADE, "--namespace", namespace, "--selector", f"agentmemory.io/memory={name}")
    return {str(one["metadata"]["name"]) for one in found["items"]}


def test_one_store_is_enough_for_agents_to_remember(namespace: str) -> None:
    apply(*(manifest_of(namespace, mode) for mode in NAMES))
    writers = {mode: Agent(namespace, f"{name}-writer", memory=name) for mode, name in NAMES.items()}
    for writer in writers.values():
        writer.deploy()
    for mode, name in NAMES.items():
        settled(namespace, name)
        unused = UNUSED[mode]
        assert not [one for one in made_for(namespace, name) if unused in one]
        assert not [key for key in secret(namespace, f"{name}-credentials") if key.startswith(unused)]
        found = conditions(namespace, name)
        assert {store for store, kinds in OF_STORE.items() if kinds <= set(found)} == OF_STORE.keys() - {unused}
        assert not OF_STORE[unused] & set(found)
        assert found["ConsolidationHealthy"]["reason"] == "NotUsed"
        assert unused not in status_of(namespace, name)
    for mode, writer in writers.items():
        last = _lose_the_pod(writer)
        _refuse_another_mode(namespace, mode)
        writer.stop()
        assert verify(writer) > last
    for name in NAMES.values():
        kubectl("delete", "agentmemory", name, "--namespace", namespace, "--timeout=120s")
    wait_for("all to go", lambda: not any(made_for(namespace, name) for name in NAMES.values()))


def _lose_the_pod(writer: Agent) -> int:
    """Its next pod goes on; answers how far the first one had come."""
    writer.wait_for_more(10)
    last = max(writer.acknowledged)
    kill_pod(writer.namespace, writer.pod())
    wait_for("the agent's next pod to go on", lambda: max(writer.woke) >= last)
    writer.wait_for_more(5)
    return last


def _refuse_another_mode(namespace: str, mode: str) -> None:
    """What runs goes on, and a pod that is made meanwhile gets the sidecar of what runs: see what the reader finds."""
    name, unused = NAMES[mode], UNUSED[mode]
    edit(namespace, name, mode="Hybrid", **{unused: {"managed": {}}})
    said = wait_condition(namespace, "Progressing", status="False", reason="ModeChanged", name=name)
    assert f"cannot change from {mode} to Hybrid" in said["message"]
    assert conditions(namespace, name)["Ready"]["status"] == "True"
    assert not [one for one in made_for(namespace, name) if unused in one]
