"""Managed Redis and Postgres: what the spec makes of them, who reaches them, and their settings by table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.resources import postgres, redis, tuning
from agentmemory_operator.resources.common import Manifest, Namespaces
from agentmemory_operator.spec import RESERVED_PARAMETERS
from support.resources import NAMESPACES, by_kind, memory

GIB = 1 << 30
MIB = 1 << 20


def redis_of(namespaces: Namespaces = NAMESPACES, **managed: Any) -> dict[str, Manifest]:
    return by_kind(redis.manifests(memory(redis={"managed": managed}), namespaces=namespaces))


def postgres_of(pooler: dict[str, Any] | None = None, **managed: Any) -> dict[str, Manifest]:
    spec = {"managed": managed} | ({"pooler": pooler} if pooler else {})
    return by_kind(postgres.manifests(memory(postgres=spec), namespaces=NAMESPACES))


def container_of(manifests: dict[str, Manifest]) -> dict[str, Any]:
    (container,) = manifests["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(manifests: dict[str, Manifest]) -> dict[str, str]:
    arguments = container_of(manifests)["args"]
    assert set(arguments[::2]) == {"-c"}
    return dict(one.split("=", 1) for one in arguments[1::2])


@pytest.mark.parametrize(("component", "port"), [("redis", 6379), ("postgres", 5432)])
def test_a_store_is_one_pod_with_a_volume_behind_a_service(component: str, port: int) -> None:
    found = redis_of() if component == "redis" else postgres_of()
    name = f"research-{component}"
    assert {one["metadata"]["name"] for one in found.values()} == {name}
    spec = found["StatefulSet"]["spec"]
    assert spec["replicas"] == 1 and spec["serviceName"] == name
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data" and claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    (served,) = found["Service"]["spec"]["ports"]
    assert served["port"] == served["targetPort"] == port
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    container = container_of(found)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["data"] == "/data" and mounts["tls"] == "/etc/agentmemory/tls"
    secrets = {volume["name"]: volume["secret"] for volume in spec["template"]["spec"]["volumes"] if "secret" in volume}
    assert secrets["admin"]["secretName"] == f"{name}-admin"
    assert secrets["admin"]["items"] == [{"key": "password", "path": "password"}]
    assert secrets["tls"]["secretName"] == f"{name}-tls"
    # Postgres takes no key that others may read; the group is the pod's own.
    assert secrets["tls"]["defaultMode"] == 0o440


def test_a_pod_that_cannot_start_is_replaced_by_one_of_a_mended_spec() -> None:
    for found in (redis_of(), postgres_of()):
        assert found["StatefulSet"]["spec"]["podManagementPolicy"] == "Parallel"


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_volumes_go_with_the_memory_only_when_asked(policy: str) -> None:
    one = memory(deletionPolicy=policy)
    for manifests in (redis.manifests(one, namespaces=NAMESPACES), postgres.manifests(one, namespaces=NAMESPACES)):
        retention = by_kind(manifests)["StatefulSet"]["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert retention == {"whenDeleted": policy, "whenScaled": "Retain"}


def test_what_the_spec_says_is_what_is_made() -> None:
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    managed: dict[str, Any] = {
        "image": "a/b:1", "storage": {"size": "7Gi", "storageClass": "fast"}, "resources": resources,
        "podDisruptionBudget": {"enabled": False},
    }  # fmt: skip
    for found in (redis_of(**managed), postgres_of(**managed)):
        container = container_of(found)
        assert container["image"] == "a/b:1" and container["resources"] == resources
        (claim,) = found["StatefulSet"]["spec"]["volumeClaimTemplates"]
        assert claim["spec"]["storageClassName"] == "fast"
        assert claim["spec"]["resources"]["requests"]["storage"] == "7Gi"
        assert "PodDisruptionBudget" not in found
    (claim,) = redis_of()["StatefulSet"]["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in claim["spec"]


def test_only_those_who_use_a_store_reach_it() -> None:
    def peers(manifests: dict[str, Manifest]) -> list[dict[str, Any]]:
        (rule,) = manifests["NetworkPolicy"]["spec"]["ingress"]
        found: list[dict[str, Any]] = rule["from"]
        return found

    def pods(**labels: str) -> dict[str, Any]:
        return {"podSelector": {"matchLabels": labels}}

    def component(name: str) -> dict[str, Any]:
        return pods(**{"app.kubernetes.io/component": name, "agentmemory.io/memory": "research"})

    def namespace(name: str) -> dict[str, Any]:
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}

    common = [
        pods(**{"agentmemory.io/sidecar": "research"}), component("drain"), namespace("agentmemory-system"),
        namespace("monitoring"),
    ]  # fmt: skip
    assert peers(redis_of()) == common
    assert peers(postgres_of()) == [*common, component("pooler")]
    unmonitored = redis.manifests(memory(monitoring={"enabled": False}), namespaces=NAMESPACES)
    assert peers(by_kind(unmonitored)) == common[:3]
    assert peers(redis_of(Namespaces("one", "one"))) == [*common[:2], namespace("one")]
    for found in (redis_of(), postgres_of()):
        policy = found["NetworkPolicy"]["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"] and "egress" not in policy


@pytest.mark.parametrize(
    ("resources", "maxmemory"),
    [
        ({}, 0),
        ({"requests": {"memory": "1Gi"}}, 0),
        ({"limits": {"cpu": "1"}}, 0),
        ({"limits": {"memory": "1Gi"}}, 751_619_276),
        ({"limits": {"memory": "1000M"}}, 700_000_000),
        ({"limits": {"memory": 1_000_000}}, 700_000),
    ],
)
def test_redis_leaves_room_below_its_limit(resources: dict[str, Any], maxmemory: int) -> None:
    arguments = container_of(redis_of(resources=resources))["args"]
    assert arguments == ["--appendfsync", "everysec", "--maxmemory", str(maxmemory)]


def test_redis_writes_as_often_as_the_spec_says() -> None:
    assert "always" in container_of(redis_of(persistence={"appendfsync": "always"}))["args"]


def test_probes_have_the_patience_for_a_recovery() -> None:
    for found in (redis_of(), postgres_of()):
        container = container_of(found)
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 300
        assert container["readinessProbe"]["exec"] == startup["exec"]
        assert liveness["exec"]["command"] == [*startup["exec"]["command"], "alive"]


def test_postgres_is_stopped_by_a_signal_that_does_not_wait_for_clients() -> None:
    pod = postgres_of()["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/sh", "-c", "kill -INT 1"]
    assert pod["terminationGracePeriodSeconds"] >= 120


def test_postgres_has_shared_memory_of_its_own_size() -> None:
    volumes = postgres_of(resources={"limits": {"memory": "2Gi"}})["StatefulSet"]["spec"]["template"]["spec"]["volumes"]
    (shared,) = [volume for volume in volumes if volume["name"] == "shm"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, ("128MB", "384MB", "32MB", "4MB")),
        (64 * MIB, ("16MB", "48MB", "16MB", "4MB")),
        (256 * MIB, ("64MB", "192MB", "16MB", "4MB")),
        (GIB, ("256MB", "768MB", "64MB", "4MB")),
        (4 * GIB, ("1024MB", "3072MB", "256MB", "10MB")),
        (32 * GIB, ("8192MB", "24576MB", "1024MB", "64MB")),
        (512 * GIB, ("16384MB", "393216MB", "1024MB", "64MB")),
    ],
)
def test_settings_by_memory(limit: int | None, expected: tuple[str, ...]) -> None:
    found = tuning.by_memory(limit, connections=100)
    names = ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "work_mem")
    assert tuple(found[name] for name in names) == expected


@pytest.mark.parametrize(
    ("limit", "pooled", "expected"),
    [(None, 0, 100), (GIB, 0, 100), (2 * GIB, 0, 200), (8 * GIB, 0, 400), (None, 80, 100), (None, 200, 220)],
)
def test_connections_by_memory_and_pooler(limit: int | None, pooled: int, expected: int) -> None:
    assert tuning.connections(limit, pooled=pooled) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(GIB, ("256MB", "80MB")), (10 * GIB, ("1024MB", "256MB")), (1024 * GIB, ("8192MB", "2048MB"))],
)
def test_settings_by_storage(size: int, expected: tuple[str, str]) -> None:
    found = tuning.by_storage(size)
    assert (found["max_wal_size"], found["min_wal_size"]) == expected


@given(st.integers(64 * MIB, 1 << 42), st.integers(1, 2000))
def test_buffers_never_take_more_than_half_of_the_memory(limit: int, connections: int) -> None:
    found = tuning.by_memory(limit, connections=connections)
    taken = [int(found[name].removesuffix("MB")) * MIB for name in ("shared_buffers", "maintenance_work_mem")]
    assert sum(taken) <= limit // 2


def test_a_pooler_gets_its_connections_even_while_two_logins_are_in_use() -> None:
    found = settings_of(postgres_of(pooler={"enabled": True, "instances": 3, "poolSize": 50}))
    assert int(found["max_connections"]) > 3 * 50 * 2
    assert settings_of(postgres_of(pooler={"enabled": False, "poolSize": 500}))["max_connections"] == "100"


def test_a_users_parameters_are_above_ours_and_say_what_they_say() -> None:
    found = settings_of(
        postgres_of(parameters={"Work-Mem": "9MB", "jit": "on", "log_line_prefix": "$(HOME) $$ ", "a.b": "=x"})
    )
    assert found["work_mem"] == "9MB" and found["jit"] == "on" and found["a.b"] == "=x"
    assert found["log_line_prefix"] == "$$(HOME) $$$$ "
    assert list(found) == sorted(found)


def test_what_agents_said_is_kept_out_of_the_log() -> None:
    found = settings_of(postgres_of())
    assert found["log_parameter_max_length"] == found["log_parameter_max_length_on_error"] == "0"
    assert found["log_error_verbosity"] == "terse"
    assert "log_statement" not in found and "log_min_duration_statement" not in found


@pytest.mark.parametrize("name", sorted(postgres.FORBIDDEN))
def test_a_forbidden_parameter_is_refused_however_it_is_written(name: str) -> None:
    for written in (name, name.upper(), name.replace("_", "-")):
        with pytest.raises(InvalidSpec) as refused:
            postgres_of(parameters={written: "off"})
        assert refused.value.reason == "ForbiddenParameter"
        assert f"spec.postgres.managed.parameters.{written}:" in str(refused.value)


def test_what_the_crd_reserves_is_forbidden() -> None:
    assert RESERVED_PARAMETERS <= postgres.FORBIDDEN


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("a=b", "x"), ("a b", "x"), ("1a", "x"), ("work_mem", "1\n"), ("work_mem", "\0")]
)
def test_what_is_no_parameter_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        postgres_of(parameters={name: value})
    assert refused.value.reason == "InvalidParameter"
