"""What sidecars are told, by the sidecar's own reading of it, and the Job that drains."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmemory_operator.resources import config, drain, sidecar
from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.spec import AgentMemory
from agentmemory_sidecar.resource import AgentMemory as SidecarsMemory
from agentmemory_sidecar.resource import parse_resource
from support.resources import POSTGRES, by_kind, memory

REDIS = StoreAddress("research-redis.team.svc", 6379, True)
EXTERNAL = {"host": "db.example", "port": 5433, "database": "agents", "secretRef": {"name": "database"}}


def made(
    one: AgentMemory, *, postgres: StoreAddress = POSTGRES, redis_ca: str | None = "R", postgres_ca: str | None = "P"
) -> dict[str, Any]:
    return config.manifest(one, redis=REDIS, postgres=postgres, redis_ca=redis_ca, postgres_ca=postgres_ca)


def read(manifest: dict[str, Any]) -> SidecarsMemory:
    return parse_resource(yaml.safe_load(manifest["data"]["agentmemory.yaml"]), "the ConfigMap")


def test_managed_stores_are_external_ones_to_a_sidecar() -> None:
    manifest = made(memory())
    assert manifest["metadata"]["name"] == "research-sidecar"
    assert set(manifest["data"]) == {"agentmemory.yaml", "redis-ca.crt", "postgres-ca.crt"}
    assert (manifest["data"]["redis-ca.crt"], manifest["data"]["postgres-ca.crt"]) == ("R", "P")
    found = read(manifest)
    assert (found.metadata.name, found.metadata.namespace) == ("research", "team")
    redis, postgres = found.spec.redis.external, found.spec.postgres.external
    assert redis is not None and postgres is not None
    assert (redis.host, redis.port, redis.tls) == ("research-redis.team.svc", 6379, True)
    assert (postgres.host, postgres.port, postgres.database) == ("research-postgres.team.svc", 5432, "agentmemory")
    assert postgres.ssl_mode == "verify-full"


def test_without_authorities_there_are_no_files_of_them() -> None:
    assert set(made(memory(), redis_ca=None, postgres_ca=None)["data"]) == {"agentmemory.yaml"}


@pytest.mark.parametrize(("mode", "unused"), [("Redis", "postgres"), ("Postgres", "redis")])
def test_a_store_that_the_mode_does_not_use_is_not_named(mode: str, unused: str) -> None:
    addresses: dict[str, Any] = {"redis": REDIS, "postgres": POSTGRES, "redis_ca": "R", "postgres_ca": "P"}
    addresses |= {unused: None, f"{unused}_ca": None}
    spec: dict[str, Any] = {"mode": mode, unused: {}}
    manifest = config.manifest(memory(**spec), **addresses)
    used = "redis" if unused == "postgres" else "postgres"
    assert set(manifest["data"]) == {"agentmemory.yaml", f"{used}-ca.crt"}
    found = read(manifest).spec
    assert found.mode == mode
    assert getattr(found, used).external is not None and getattr(found, unused).external is None


@pytest.mark.parametrize(
    ("postgres", "ca", "expected"),
    [
        ({"managed": {}}, "P", "verify-full"),
        ({"managed": {}}, None, "require"),
        ({"external": EXTERNAL}, None, "prefer"),
        ({"external": EXTERNAL}, "P", "verify-full"),
        ({"external": EXTERNAL | {"sslMode": "disable"}}, "P", "disable"),
        ({"external": EXTERNAL | {"sslMode": "verify-ca"}}, "P", "verify-ca"),
        ({"external": EXTERNAL | {"sslMode": "verify-full"}}, None, "verify-full"),
        ({"external": EXTERNAL | {"sslMode": "disable"}, "pooler": {"enabled": True}}, "P", "verify-full"),
    ],
)
def test_how_postgres_is_spoken_to(postgres: dict[str, Any], ca: str | None, expected: str) -> None:
    found = read(made(memory(postgres=postgres), postgres_ca=ca)).spec.postgres.external
    assert found is not None and found.ssl_mode == expected


def specs() -> st.SearchStrategy[dict[str, Any]]:
    ratios = st.tuples(st.integers(1, 50), st.integers(51, 100)).map(
        lambda pair: {"warningRatio": pair[0] / 100, "criticalRatio": pair[1] / 100}
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "shards": st.integers(1, 1024),
            "workingMemory": st.fixed_dictionaries(
                {"ttl": st.sampled_from(["1h", "90s", "1h30m", "7d"]), "recentMessages": st.integers(1, 1000)},
                optional={"maxDocumentSize": st.sampled_from(["1048576", "512Ki", "64Mi"])},
            ),
            "consolidation": st.fixed_dictionaries(
                {"maxDelay": st.sampled_from(["10ms", "5s"]), "batchSize": st.integers(1, 10_000), "alerts": ratios}
            ),
            "embedding": st.sampled_from(
                [
                    {"provider": "None"},
                    {"provider": "Local", "dimensions": 384},
                    {"provider": "OpenAI", "model": "small", "dimensions": 512},
                    {
                        "provider": "OpenAI",
                        "model": "a/b",
                        "baseUrl": "http://vllm:8000/v1",
                        "secretRef": {"name": "keys", "key": "token"},
                    },
                ]
            ),
            "recall": st.just({"index": {"kind": "Exact", "m": 4, "efConstruction": 9}}),
            "distillation": st.fixed_dictionaries(
                {"endpoint": st.just("http://vllm:8000/v1"), "model": st.just("a/b")},
                optional={"secretRef": st.sampled_from([{"name": "keys"}, {"name": "keys", "key": "token"}])},
            ),
            "retention": st.sampled_from([{}, {"events": "90d"}]),
            "sidecar": st.fixed_dictionaries(
                {"port": st.integers(1, 65_535)}, optional={"opsPort": st.integers(1, 65_535), "image": st.just("x")}
            ),
            "tls": st.just({"issuerRef": {"name": "corporate"}}),
            "monitoring": st.just({"enabled": False}),
            "deletionPolicy": st.just("Delete"),
        },
    )


@settings(max_examples=60, deadline=None)
@given(specs())
def test_a_sidecar_reads_what_the_platform_engineer_wrote(spec: dict[str, Any]) -> None:
    asked = parse_resource(
        {
            "apiVersion": "agentmemory.io/v1alpha1",
            "kind": "AgentMemory",
            "metadata": {"name": "research", "namespace": "team"},
            "spec": {name: value for name, value in spec.items() if name != "tls"},
        },
        "the original",
    ).spec
    found = read(made(memory(**spec))).spec
    for part in ("mode", "shards", "working_memory", "consolidation", "embedding", "recall", "retention"):
        assert getattr(found, part) == getattr(asked, part), part
    assert (found.sidecar.port, found.sidecar.ops_port) == (asked.sidecar.port, asked.sidecar.ops_port)


def test_the_drain_runs_the_sidecars_image_once_with_its_files() -> None:
    job = drain.manifest(memory(), image="sidecar:1", pull_policy="Never")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert job["metadata"]["name"] == "research-drain"
    assert (container["image"], container["imagePullPolicy"], container["args"]) == ("sidecar:1", "Never", ["drain"])
    assert container["volumeMounts"] == sidecar.mounts() and pod["volumes"] == sidecar.volumes("research")
    assert pod["restartPolicy"] == "Never"
    environment = {one["name"]: one.get("value") for one in container["env"]}
    patience = int(environment["AGENTMEMORY_DRAIN_TIMEOUT"] or 0)
    assert spec["activeDeadlineSeconds"] > patience * (spec["backoffLimit"] + 1)
    assert "agentmemory.io/sidecar" not in spec["template"]["metadata"]["labels"]


def test_the_drain_takes_what_a_sidecar_takes() -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    for asked, expected in ((None, sidecar.default_resources()), (resources, resources)):
        one = memory(sidecar={"resources": asked} if asked else {})
        found = by_kind([drain.manifest(one, image="x", pull_policy="Always")])["Job"]
        assert found["spec"]["template"]["spec"]["containers"][0]["resources"] == expected
