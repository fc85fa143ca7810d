"""What stands in the way of a memory with managed stores: each is said with a reason and with what to do, and is over
once it is mended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from agentmemory_engine.keys import Keys
from support.cluster import apply, get, memory_manifest, pods, wait_condition, wait_for, wait_ready
from support.edits import edit, nudge, owners, patch, secret_of
from support.external_stores import ExternalStores, start_stores
from support.kubectl import kubectl, kubectl_json

pytestmark = pytest.mark.cluster

NOWHERE = "registry.invalid/nothing:1"
POSTGRES = "pgvector/pgvector:pg17"


def said(namespace: str, kind: str, reason: str, *words: str) -> str:
    """The message of a condition that is False for this reason, which Ready repeats; the words are in it."""
    found = wait_condition(namespace, kind, status="False", reason=reason)
    for word in words:
        assert word in found["message"]
    wait_for("Ready to say so", lambda: _is_not_ready(namespace))
    return str(found["message"])


def _is_not_ready(namespace: str) -> bool:
    body = get("agentmemory", namespace, "research") or {}
    found = {one["type"]: one for one in body.get("status", {}).get("conditions", [])}
    return "Ready" in found and found["Ready"]["status"] == "False"


@pytest.fixture
def storage_class() -> Iterator[str]:
    """The name of a StorageClass that is not there; what a test makes of that name goes with it."""
    name = f"test-{os.urandom(4).hex()}"
    yield name
    kubectl("delete", "storageclass", name, "--ignore-not-found")


def test_no_class_for_a_volume_and_no_image_to_pull(namespace: str, storage_class: str) -> None:
    redis = {"managed": {"image": NOWHERE, "storage": {"size": "32Mi"}}}
    postgres = {"managed": {"storage": {"size": "128Mi", "storageClass": storage_class}}}
    apply(memory_manifest(namespace, redis=redis, postgres=postgres))
    said(namespace, "RedisReady", "ImagePullFailed", NOWHERE, "imagePullSecrets")
    said(namespace, "PostgresReady", "StorageClassMissing", f"StorageClass {storage_class}", "make it")
    apply(_class_like_the_default_one(storage_class))
    wait_condition(namespace, "PostgresReady")
    edit(namespace, redis={"managed": {"image": "redis:8"}})
    wait_ready(namespace)


def _class_like_the_default_one(name: str) -> dict[str, Any]:
    default = "storageclass.kubernetes.io/is-default-class"
    found = kubectl_json("get", "storageclasses")["items"]
    like = next(one for one in found if one["metadata"].get("annotations", {}).get(default) == "true")
    kept = {key: like[key] for key in ("apiVersion", "provisioner", "volumeBindingMode", "parameters") if key in like}
    return kept | {"kind": "StorageClass", "metadata": {"name": name}}


def test_a_quota_that_forbids(namespace: str) -> None:
    """Of what the operator makes itself, and of what a StatefulSet makes for it."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": namespace},
        "spec": {"hard": {"count/secrets": "1", "pods": "1"}},
    }
    apply(quota)
    wait_for("the quota to be in force", lambda: "hard" in (get("resourcequota", namespace, "small") or {})["status"])
    apply(memory_manifest(namespace))
    said(namespace, "RedisReady", "QuotaExceeded", "exceeded quota: small")
    patch(namespace, "resourcequota", "small", {"spec": {"hard": {"count/secrets": "20"}}})
    wait_for("one store to lack its pod", lambda: _lacks_a_pod(namespace))
    patch(namespace, "resourcequota", "small", {"spec": {"hard": {"pods": "2"}}})
    wait_ready(namespace)


def _lacks_a_pod(namespace: str) -> bool:
    """Whichever of the two came second."""
    body = get("agentmemory", namespace, "research") or {}
    return any(
        one["type"] in ("RedisReady", "PostgresReady")
        and one["reason"] == "QuotaExceeded"
        and "cannot make its pod" in one["message"]
        for one in body["status"]["conditions"]
    )


def test_objects_of_somebody_else_are_neither_taken_nor_deleted(namespace: str) -> None:
    theirs = [
        {"kind": "Service", "metadata": {"name": "research-redis"}, "spec": {"ports": [{"port": 80}]}},
        {"kind": "Secret", "metadata": {"name": "research-postgres-admin"}, "stringData": {"password": "theirs"}},
        {"kind": "ConfigMap", "metadata": {"name": "research-sidecar"}, "data": {"theirs": "yes"}},
    ]
    for one in theirs:
        one |= {"apiVersion": "v1"}
        one["metadata"] |= {"namespace": namespace, "labels": {"app": "theirs"}}  # type: ignore[operator]
    apply(*theirs)
    before = _as_they_are(namespace, theirs)
    apply(memory_manifest(namespace, deletionPolicy="Delete"))
    said(namespace, "RedisReady", "NameTaken", "Service research-redis", "left alone")
    said(namespace, "PostgresReady", "NameTaken", "Secret research-postgres-admin", "left alone")
    kubectl("delete", "agentmemory", "research", "--namespace", namespace)
    wait_for("what is ours to go", lambda: get("secret", namespace, "research-credentials") is None)
    assert _as_they_are(namespace, theirs) == before
    apply(memory_manifest(namespace))
    for kind in ("service/research-redis", "secret/research-postgres-admin"):
        kubectl("delete", kind, "--namespace", namespace)
    said(namespace, "CredentialsReady", "NameTaken", "ConfigMap research-sidecar")
    kubectl("delete", "configmap/research-sidecar", "--namespace", namespace)
    wait_ready(namespace)


def _as_they_are(namespace: str, things: list[dict[str, Any]]) -> list[Any]:
    found = [get(one["kind"], namespace, one["metadata"]["name"]) or {} for one in things]
    assert not any(owners(one) for one in found)
    return [(one["metadata"]["resourceVersion"], one.get("data"), one.get("spec")) for one in found]


def test_data_of_another_major_version(namespace: str) -> None:
    """The volume was somebody's before: it is left as it is, whatever the image."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-research-postgres-0", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "256Mi"}}},
    }
    apply(claim)
    _on_volume(namespace, "old", "mkdir /data/pgdata && echo 13 >/data/pgdata/PG_VERSION")
    apply(memory_manifest(namespace))
    said(namespace, "PostgresReady", "MajorVersionMismatch", "made by PostgreSQL 13", "Set an image of PostgreSQL 13")
    _on_volume(namespace, "mended", "grep -x 13 /data/pgdata/PG_VERSION && rm -r /data/pgdata")
    wait_ready(namespace)


def _on_volume(namespace: str, name: str, script: str) -> None:
    """Run a script with the volume of Postgres at /data."""
    container = {
        "name": "script",
        "image": POSTGRES,
        "command": ["/bin/sh", "-euc", script],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    user = {"runAsNonRoot": True, "runAsUser": 999, "fsGroup": 999, "seccompProfile": {"type": "RuntimeDefault"}}
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-research-postgres-0"}}
    spec = {"restartPolicy": "Never", "securityContext": user, "containers": [container], "volumes": [volume]}
    metadata = {"name": name, "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    kubectl(
        "wait", f"pod/{name}", "--namespace", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"
    )


def test_secrets_that_are_lost_are_made_anew(namespace: str, memory: str) -> None:
    """The data stays; the stores start again with what the new Secrets hold."""
    lost = ("ca", "redis-tls", "postgres-tls", "redis-admin", "postgres-admin", "credentials")
    before = {name: secret_of(namespace, f"research-{name}") for name in lost}
    identity = _identity(namespace, before["postgres-admin"]["password"])
    kubectl("delete", "secret", *(f"research-{name}" for name in lost), "--namespace", namespace)
    nudge(namespace)
    wait_for("new ones", lambda: all(get("secret", namespace, f"research-{name}") for name in lost))
    wait_for("it to be ready with them", lambda: _answers(namespace, identity), 180.0)
    wait_ready(namespace)
    after = {name: secret_of(namespace, f"research-{name}") for name in lost}
    assert all(after[name] != before[name] for name in lost)


def _identity(namespace: str, password: str) -> str:
    """The id in the identity record, as the administrator of Postgres reads it over the network."""
    dsn = "host=research-postgres dbname=agentmemory user=postgres sslmode=require"
    return kubectl(
        "exec", "--namespace", namespace, "research-postgres-0", "--", "env", f"PGPASSWORD={password}",
        "psql", dsn, "-XqtA", "-c", f"SELECT id FROM {Keys(namespace, 'research').schema}.identity",
    ).strip()  # fmt: skip


def _answers(namespace: str, identity: str) -> bool:
    return _identity(namespace, secret_of(namespace, "research-postgres-admin")["password"]) == identity


@pytest.fixture
def stores(namespace: str) -> ExternalStores:
    return start_stores(namespace)


def test_stores_of_another_memory(namespace: str, stores: ExternalStores) -> None:
    """What a Postgres or a Redis holds under this memory's names belongs to another one: nobody is served with it."""
    apply(stores.memory("research"))
    wait_ready(namespace)
    keys = Keys(namespace, "research")
    stores.sql(f"UPDATE {keys.schema}.identity SET namespace = 'elsewhere'")
    nudge(namespace)
    said(namespace, "SchemaReady", "IdentityMismatch", "belongs to another AgentMemory")
    stores.sql(f"UPDATE {keys.schema}.identity SET namespace = '{namespace}'")
    wait_ready(namespace)
    ours = stores.redis("GET", keys.identity)
    stores.redis("SET", keys.identity, "00000000-0000-4000-8000-000000000000")
    nudge(namespace)
    said(namespace, "RedisReady", "IdentityMismatch", "the memory of another AgentMemory")
    stores.redis("SET", keys.identity, ours)
    wait_ready(namespace)
    kubectl("delete", "agentmemory", "research", "--namespace", namespace)
    apply(stores.memory("research", shards=8))
    said(namespace, "SchemaReady", "IdentityMismatch", "was made with 4 shards", "shards: 4")
    assert pods(namespace, "agentmemory.io/memory=research") == []
    kubectl("delete", "agentmemory", "research", "--namespace", namespace)
    apply(stores.memory("research"))
    wait_ready(namespace)
