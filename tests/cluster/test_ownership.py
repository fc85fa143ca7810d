"""Whose the stores and what is in them are: what stays when a memory is deleted, what goes, and who finds it again."""

from __future__ import annotations

import os
from typing import Any

import pytest

from agentmemory_engine.keys import Keys
from support.cluster import (
    Agent,
    apply,
    get,
    memory_manifest,
    pods,
    settled,
    status_of,
    verify,
    wait_for,
    wait_ready,
)
from support.edits import edit, events_of, no_operator, owners, secret_of
from support.external_stores import ExternalStores, start_stores
from support.kubectl import kubectl, kubectl_json

pytestmark = pytest.mark.cluster

KINDS = (
    "statefulsets,deployments,jobs,pods,services,secrets,configmaps,persistentvolumeclaims,poddisruptionbudgets,"
    "networkpolicies"
)
ADMINS = ("research-redis-admin", "research-postgres-admin")
CONFIG = "ConfigMap/research-sidecar"
STORES = {
    f"{kind}/research-{store}"
    for kind in ("StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy")
    for store in ("redis", "postgres")
}
SECRETS = {
    f"Secret/research-{name}"
    for name in ("ca", "credentials", "redis-admin", "redis-tls", "postgres-admin", "postgres-tls")
}
CLAIMS = {f"PersistentVolumeClaim/data-research-{store}-0" for store in ("redis", "postgres")}


def made_for(namespace: str, name: str = "research") -> dict[str, dict[str, Any]]:
    """Everything in the namespace that was made for a memory, by kind and name."""
    found = kubectl_json("get", KINDS, "--namespace", namespace, "--selector", f"agentmemory.io/memory={name}")
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found["items"]}


def owned_by(namespace: str) -> dict[str, list[str]]:
    """What each of those goes with; pods go with their StatefulSet whatever is declared."""
    return {key: owners(one) for key, one in made_for(namespace).items() if one["kind"] != "Pod"}


def delete(namespace: str, name: str = "research") -> None:
    """Delete a memory; it is gone when this returns."""
    kubectl("delete", "agentmemory", name, "--namespace", namespace, "--timeout=120s")


def uids(namespace: str) -> dict[str, str]:
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in pods(namespace, "agentmemory.io/memory")}


def test_under_retain_all_stays_and_is_found_again(namespace: str, memory: str) -> None:
    """An agent that goes on writing does not notice that its memory was deleted and made again."""
    writer = Agent(namespace)
    writer.start()
    assert set(owned_by(namespace)) == STORES | SECRETS | CLAIMS | {CONFIG}
    assert {key for key, found in owned_by(namespace).items() if found} == {CONFIG}
    before = uids(namespace)
    kept = {name: secret_of(namespace, name) for name in (*ADMINS, "research-credentials", "research-ca")}
    delete(namespace)
    wait_for("the ConfigMap to go", lambda: CONFIG not in made_for(namespace))
    assert set(owned_by(namespace)) == STORES | SECRETS | CLAIMS
    writer.wait_for_more(5)
    apply(memory_manifest(namespace))
    wait_ready(namespace)
    assert {name: secret_of(namespace, name) for name in kept} == kept
    assert uids(namespace) == before
    writer.wait_for_more(5)
    writer.stop()
    assert verify(writer) >= 13
    assert status_of(namespace)["consolidation"]["deadLetters"] == 0


def test_the_policy_can_change_and_under_delete_all_goes(namespace: str, memory: str) -> None:
    before = uids(namespace)
    edit(namespace, deletionPolicy="Delete")
    expected = {key: ["AgentMemory/research"] for key in STORES | SECRETS | {CONFIG}}
    expected |= {claim: [f"StatefulSet/{claim.removeprefix('PersistentVolumeClaim/data-')[:-2]}"] for claim in CLAIMS}
    wait_for("all to go with the memory", lambda: owned_by(namespace) == expected)
    edit(namespace, deletionPolicy="Retain")
    nothing = {key: owned for key, owned in expected.items() if key == CONFIG}
    nothing |= {key: [] for key in STORES | SECRETS | CLAIMS}
    wait_for("nothing of value to go with it", lambda: owned_by(namespace) == nothing)
    edit(namespace, deletionPolicy="Delete")
    wait_for("all to go with it again", lambda: owned_by(namespace) == expected)
    assert uids(namespace) == before, "no store started anew for that"
    kubectl("delete", "agentmemory", "research", "--namespace", namespace)
    # At once: what is on its way out is not taken for what was just made, whichever of it is gone already.
    apply(memory_manifest(namespace, deletionPolicy="Delete"))
    settled(namespace)
    wait_for("all to be there, and go with the new one", lambda: owned_by(namespace) == expected)
    uid = (get("agentmemory", namespace, "research") or {})["metadata"]["uid"]
    assert all(uid == owner["uid"] for owner in _owning_memories(namespace))
    delete(namespace)
    wait_for("everything to be gone", lambda: not made_for(namespace))


def _owning_memories(namespace: str) -> list[dict[str, Any]]:
    owning = [owner for one in made_for(namespace).values() for owner in one["metadata"].get("ownerReferences", [])]
    return [owner for owner in owning if owner["kind"] == "AgentMemory"]


def left_in_stores(stores: ExternalStores, name: str) -> dict[str, list[str]]:
    """What names a memory in stores of the user's own."""
    keys = Keys(stores.namespace, name)
    return {
        "keys": stores.redis("--scan", "--pattern", f"{keys.prefix}*").split(),
        "users": [one for one in stores.redis("ACL", "USERS").split() if one.startswith(keys.schema)],
        "roles": stores.sql(f"SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{keys.schema}')").split(),
        "schemas": stores.sql(f"SELECT nspname FROM pg_namespace WHERE nspname = '{keys.schema}'").split(),
    }


def test_delete_leaves_nothing_in_stores_of_the_users_own(namespace: str) -> None:
    """Of the memory that goes; the one beside it stays whole."""
    stores = start_stores(namespace)
    names = ("doomed", "lasting", "orphaned")
    apply(*(stores.memory(name, deletionPolicy="Delete") for name in names))
    for name in names:
        wait_ready(namespace, name)
    writer = Agent(namespace, memory="doomed")
    writer.start()
    before = {name: left_in_stores(stores, name) for name in names}
    for kinds in before.values():
        assert all(kinds.values()), f"each kind of thing is there: {before}"
    delete(namespace, "doomed")
    assert left_in_stores(stores, "doomed") == {"keys": [], "users": [], "roles": [], "schemas": []}
    wait_for("its objects to go", lambda: not [one for one in made_for(namespace, "doomed") if "Pod/" not in one])
    assert left_in_stores(stores, "lasting") == before["lasting"]
    kubectl("delete", "secret", "redis-login", "postgres-login", "--namespace", namespace)
    delete(namespace, "orphaned")
    assert left_in_stores(stores, "orphaned") == before["orphaned"]
    said = wait_for("an Event about it", lambda: events_of(namespace, "orphaned").get("DataLeft"))
    assert Keys(namespace, "orphaned").schema in said


@pytest.mark.disruptive
def test_a_namespace_goes_while_the_operator_is_down(chart: None) -> None:
    """Completely, where nothing has to be erased elsewhere; else as soon as the operator is back."""
    managed, external = (f"test-{kind}-{os.urandom(3).hex()}" for kind in ("managed", "external"))
    for namespace in (managed, external):
        kubectl("create", "namespace", namespace)
    try:
        apply(memory_manifest(managed))
        stores = start_stores(external)
        apply(stores.memory("research", deletionPolicy="Delete"))
        wait_ready(external)
        wait_ready(managed)
        with no_operator():
            for namespace in (managed, external):
                kubectl("delete", "namespace", namespace, "--wait=false")
            wait_for("the namespace to go", lambda: get("namespace", "", managed) is None)
            wait_for("all but the memory to go", lambda: not made_for(external))
            assert get("agentmemory", external, "research") is not None
        wait_for("the other one to go as well", lambda: get("namespace", "", external) is None)
    finally:
        kubectl("delete", "namespace", managed, external, "--ignore-not-found", "--wait=false")
