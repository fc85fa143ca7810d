"""The AgentMemory as the operator reads it: defaults, mistakes by their path, durations and quantities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kopf import Body

from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.spec import (
    AgentMemory,
    ExternalPostgres,
    ExternalRedis,
    IssuerRef,
    ManagedPostgres,
    ManagedRedis,
    Pooler,
    SecretRef,
    Spec,
    Storage,
    bytes_of,
    read,
    seconds,
)
from agentmemory_sidecar.quantities import parse_duration, parse_size

LEAST = "{redis: {managed: {}}, postgres: {managed: {}}}"


def body(spec: str = LEAST, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agentmemory.io/v1alpha1",
        "kind": "AgentMemory",
        "metadata": {"name": "research", "namespace": "team", "uid": "1-2-3", "generation": 4, **metadata},
        "spec": yaml.safe_load(spec),
    }


def spec_of(spec: str) -> Spec:
    return read(body(spec)).spec


def test_the_least_resource_has_the_defaults_of_the_design() -> None:
    spec = spec_of(LEAST)
    assert (spec.mode, spec.shards, spec.deletion_policy, spec.monitoring.enabled) == ("Hybrid", 16, "Retain", True)
    memory, consolidation = spec.working_memory, spec.consolidation
    assert (memory.ttl, memory.recent_messages, memory.max_document_size) == ("1h", 50, "1Mi")
    assert (consolidation.max_delay, consolidation.batch_size) == ("5s", 256)
    assert (consolidation.alerts.warning_ratio, consolidation.alerts.critical_ratio) == (0.5, 0.8)
    assert (spec.embedding.provider, spec.embedding.dimensions) == ("Local", 384)
    assert (spec.recall.distance, spec.recall.index.kind) == ("Cosine", "Exact")
    assert (spec.recall.index.m, spec.recall.index.ef_construction) == (16, 128)
    assert spec.retention.events is None
    assert spec.redis.managed == ManagedRedis(image="redis:8", storage=Storage(size="1Gi"))
    assert spec.redis.managed.persistence.appendfsync == "everysec"
    assert spec.redis.managed.pod_disruption_budget.enabled
    assert spec.postgres.managed == ManagedPostgres(image="pgvector/pgvector:pg17", storage=Storage(size="10Gi"))
    assert spec.postgres.pooler == Pooler(enabled=False, instances=2, image="edoburu/pgbouncer:v1.24", pool_size=20)
    assert (spec.sidecar.image, spec.sidecar.resources) == (None, None)
    assert (spec.sidecar.port, spec.sidecar.ops_port) == (7070, 7071)
    assert spec.tls.issuer_ref is None


def test_every_member_is_read() -> None:
    spec = spec_of("""
        redis:
          external: {host: redis.example.com, port: 6380, tls: true, secretRef: {name: redis-login}}
        postgres:
          managed:
            image: pgvector/pgvector:pg18
            storage: {size: 20Gi, storageClass: fast}
            resources: {requests: {cpu: 1, memory: 1Gi}}
            podDisruptionBudget: {enabled: false}
            parameters: {work_mem: 16MB}
            nodeSelector: {disk: ssd}
            tolerations: [{key: a, operator: Exists}]
            affinity: {nodeAffinity: {}}
            priorityClassName: high
            imagePullSecrets: [{name: pull}]
            topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
          pooler: {enabled: true, instances: 3, poolSize: 10, nodeSelector: {disk: ssd}}
        tls: {issuerRef: {name: house}}
        sidecar: {image: mine, resources: {limits: {memory: 1Gi}}}
    """)
    assert spec.redis.external == ExternalRedis(
        host="redis.example.com", port=6380, tls=True, secret_ref=SecretRef(name="redis-login")
    )
    managed = spec.postgres.managed
    assert managed is not None
    assert (managed.image, managed.storage) == ("pgvector/pgvector:pg18", Storage(size="20Gi", storage_class="fast"))
    assert managed.resources == {"requests": {"cpu": 1, "memory": "1Gi"}}
    assert (managed.pod_disruption_budget.enabled, managed.parameters) == (False, {"work_mem": "16MB"})
    assert (managed.node_selector, managed.priority_class_name) == ({"disk": "ssd"}, "high")
    assert managed.tolerations == [{"key": "a", "operator": "Exists"}]
    assert managed.affinity == {"nodeAffinity": {}}
    assert managed.image_pull_secrets == [{"name": "pull"}]
    assert managed.topology_spread_constraints[0]["topologyKey"] == "zone"
    pooler = spec.postgres.pooler
    assert (pooler.enabled, pooler.instances, pooler.pool_size) == (True, 3, 10)
    assert pooler.node_selector == {"disk": "ssd"}
    assert spec.tls.issuer_ref == IssuerRef(name="house", kind="Issuer", group="cert-manager.io")
    assert (spec.sidecar.image, spec.sidecar.resources) == ("mine", {"limits": {"memory": "1Gi"}})


def test_an_external_postgres_has_defaults() -> None:
    spec = spec_of("{redis: {managed: {}}, postgres: {external: {host: pg, secretRef: {name: login}}}}")
    assert spec.postgres.external == ExternalPostgres(
        host="pg", port=5432, database="agentmemory", ssl_mode="prefer", secret_ref=SecretRef(name="login")
    )


def test_metadata_is_read() -> None:
    memory = read(body(annotations={"agentmemory.io/reconcile": "disabled"}))
    assert (memory.namespace, memory.name, memory.uid, memory.generation) == ("team", "research", "1-2-3", 4)
    assert memory.annotations == {"agentmemory.io/reconcile": "disabled"}
    assert not memory.deleting
    assert read(body(deletionTimestamp="2026-11-22T12:00:00Z")).deleting
    assert read(body()).annotations == {}


def test_the_body_that_kopf_hands_over_reads_the_same() -> None:
    given: Mapping[str, Any] = Body(cast(Any, body()))
    memory: AgentMemory = read(given)
    assert memory == read(body())
    assert memory.raw == body()


def test_what_a_newer_crd_adds_is_passed_over() -> None:
    spec = spec_of("{redis: {managed: {later: 1}}, postgres: {managed: {}}, later: {much: true}}")
    assert spec == spec_of(LEAST)


def test_what_is_one_memorys_default_is_not_shared_with_another() -> None:
    one, other = spec_of(LEAST).redis.managed, spec_of(LEAST).redis.managed
    assert one is not None and other is not None
    one.node_selector["disk"] = "ssd"
    assert other.node_selector == {}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("{workingMemory: {ttl: 60}}", "spec.workingMemory.ttl: Expected `str`"),
        ("{workingMemory: {ttl: 1w}}", "spec.workingMemory.ttl: "),
        ('{workingMemory: {ttl: "1h\\n"}}', "spec.workingMemory.ttl: "),
        ("{workingMemory: {maxDocumentSize: 1MB}}", "spec.workingMemory.maxDocumentSize: "),
        ("{consolidation: {alerts: {warningRatio: 0}}}", "spec.consolidation.alerts.warningRatio: "),
        ("{embedding: {dimensions: 4001}}", "spec.embedding.dimensions: "),
        ("{mode: hybrid}", "spec.mode: Invalid enum value"),
        ("{redis: {managed: {storage: {size: big}}}}", "spec.redis.managed.storage.size: "),
        ("{redis: {managed: {storage: {size: -1Gi}}}}", "spec.redis.managed.storage.size: "),
        ("{redis: {managed: {storage: {}}}}", "spec.redis.managed.storage: Object missing required field `size`"),
        ("{redis: {external: {host: a}}}", "spec.redis.external: Object missing required field `secretRef`"),
        ("{redis: {managed: {tolerations: [1]}}}", "spec.redis.managed.tolerations[0]: "),
        ("{sidecar: {opsPort: 70000}}", "spec.sidecar.opsPort: "),
        ("{}", "spec.redis: give exactly one of managed and external"),
        ("{redis: {managed: {}}}", "spec.postgres: give exactly one of managed and external"),
        (
            "{redis: {managed: {}, external: {host: a, secretRef: {name: b}}}}",
            "spec.redis: give exactly one of managed and external",
        ),
        ("{mode: Redis, redis: {managed: {}}, postgres: {managed: {}}}", "spec.postgres: mode Redis does not use it"),
        ("{mode: Postgres, redis: {managed: {}}, postgres: {managed: {}}}", "spec.redis: mode Postgres does not"),
        ("[1]", "spec: Expected `object`"),
    ],
)
def test_a_mistake_is_named_by_its_field(spec: str, named: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec_of(spec)
    assert caught.value.reason == "InvalidSpec"
    assert str(caught.value).startswith(named)


def test_a_resource_without_a_spec_is_named() -> None:
    with pytest.raises(InvalidSpec, match="the resource: Object missing required field `spec`"):
        read({"metadata": {"name": "a", "namespace": "b"}})


def test_modes_of_one_store_need_that_store_only() -> None:
    assert spec_of("{mode: Redis, redis: {managed: {}}}").postgres.managed is None
    assert spec_of("{mode: Postgres, postgres: {managed: {}}}").redis.managed is None


@pytest.mark.parametrize(
    ("text", "worth"),
    [("500ms", 0.5), ("5s", 5.0), ("1h30m", 5400.0), ("7d", 604_800.0), ("1m1ms", 60.001), ("0s", 0.0)],
)
def test_durations(text: str, worth: float) -> None:
    assert seconds(text) == worth == parse_duration(text)


@given(st.lists(st.tuples(st.integers(0, 10**9 - 1), st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1))
def test_a_duration_is_worth_the_same_to_operator_and_sidecar(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert seconds(text) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "s", "1w", "1.5h", "-1s", "1h ", "1H", "٣s", "1234567890s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("0", 0),
        ("1024", 1024),
        ("500m", 1),
        ("1500m", 2),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ki", 1024),
        ("1.5Gi", 1_610_612_736),
        (".5Mi", 524_288),
        ("10Gi", 10 << 30),
        ("+2M", 2_000_000),
    ],
)
def test_quantities(text: str, worth: int) -> None:
    assert bytes_of(text) == worth


@given(st.integers(0, 10**15 - 1), st.sampled_from(["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]))
def test_a_size_is_worth_the_same_to_operator_and_sidecar(number: int, unit: str) -> None:
    assert bytes_of(f"{number}{unit}") == parse_size(f"{number}{unit}")


@pytest.mark.parametrize("text", ["", "Gi", "1GB", "1 Gi", "NaN", "Infinity", "1_000", "-1Gi", "1mi", "1e", "1Gi\n"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        bytes_of(text)
