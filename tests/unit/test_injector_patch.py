"""Pod in, patched pod out."""

from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator.injector.decision import Known
from agentmemory_operator.injector.patch import Image
from agentmemory_operator.spec import AgentMemory, read
from support.injector import Pod, container, environment, known, memory, patched, pod, resource, sidecar_of

URL = {"name": "AGENTMEMORY_URL", "value": "http://127.0.0.1:7070"}


def test_the_whole_of_a_small_pod() -> None:
    items = [
        {"key": key, "path": key}
        for key in ("redis-username", "redis-password", "postgres-username", "postgres-password")
    ]
    probe = {"httpGet": {"path": "/healthz", "port": 7071}, "timeoutSeconds": 5}
    assert patched(pod()) == {
        "metadata": {
            "generateName": "agent-7d9-",
            "labels": {"agentmemory.io/inject": "research", "agentmemory.io/sidecar": "research"},
        },
        "spec": {
            "initContainers": [
                {
                    "name": "agentmemory",
                    "image": "agentmemory-sidecar:1",
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["serve"],
                    "restartPolicy": "Always",
                    "ports": [{"name": "agentmemory-ops", "containerPort": 7071, "protocol": "TCP"}],
                    "env": [
                        {"name": "AGENTMEMORY_CONFIG", "value": "/etc/agentmemory/agentmemory.yaml"},
                        {"name": "AGENTMEMORY_CREDENTIALS_DIR", "value": "/etc/agentmemory"},
                        {"name": "AGENTMEMORY_LOG_FORMAT", "value": "json"},
                        {"name": "AGENTMEMORY_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    ],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "96Mi"},
                        "limits": {"cpu": "2", "memory": "512Mi"},
                    },
                    "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 120},
                    "livenessProbe": probe | {"periodSeconds": 10, "failureThreshold": 6},
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "allowPrivilegeEscalation": False,
                        "privileged": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        {"name": "agentmemory", "mountPath": "/etc/agentmemory", "readOnly": True},
                        {"name": "agentmemory-tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "containers": [{"name": "app", "image": "app:1", "env": [URL]}],
            "volumes": [
                {
                    "name": "agentmemory",
                    "projected": {
                        "defaultMode": 0o444,
                        "sources": [
                            {"configMap": {"name": "research-sidecar"}},
                            {"secret": {"name": "research-credentials", "items": items}},
                        ],
                    },
                },
                {"name": "agentmemory-tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            ],
        },
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runAsNonRoot", True),
        ("runAsUser", 65532),
        ("runAsGroup", 65532),
        ("allowPrivilegeEscalation", False),
        ("privileged", False),
        ("readOnlyRootFilesystem", True),
        ("capabilities", {"drop": ["ALL"]}),
        ("seccompProfile", {"type": "RuntimeDefault"}),
    ],
)
def test_the_restricted_profile_is_met_by_the_container_itself(field: str, value: Any) -> None:
    """The profile takes some of these from the pod, which may say otherwise, and some from nowhere else."""
    loose = pod(securityContext={"runAsNonRoot": False, "runAsUser": 0, "seccompProfile": {"type": "Unconfined"}})
    assert sidecar_of(patched(loose))["securityContext"][field] == value


def test_no_security_setting_goes_beyond_the_list() -> None:
    assert len(sidecar_of(patched(pod()))["securityContext"]) == 8


def test_it_is_first_and_the_others_keep_their_order() -> None:
    one = pod(initContainers=[container("a"), container("b", restartPolicy="Always")], volumes=[{"name": "v"}])
    spec = patched(one)["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["agentmemory", "a", "b"]
    assert [each["name"] for each in spec["volumes"]] == ["v", "agentmemory", "agentmemory-tmp"]
    assert spec["initContainers"][0]["restartPolicy"] == "Always"
    assert "readinessProbe" not in spec["initContainers"][0]


def test_every_container_is_told_the_address() -> None:
    one = pod(initContainers=[container("first")], containers=[container("app"), container("worker", env=[])])
    spec = patched(one)["spec"]
    for each in (spec["initContainers"][1], *spec["containers"]):
        assert each["env"] == [URL]


def test_the_address_comes_before_what_may_refer_to_it() -> None:
    own = {"name": "MEMORY", "value": "$(AGENTMEMORY_URL)/v1"}
    assert patched(pod(containers=[container(env=[own])]))["spec"]["containers"][0]["env"] == [URL, own]


def test_an_address_of_the_apps_own_stays() -> None:
    own = {"name": "AGENTMEMORY_URL", "value": "http://elsewhere"}
    one = pod(containers=[container(env=[own]), container("worker")])
    app, worker = patched(one)["spec"]["containers"]
    assert app["env"] == [own]
    assert worker["env"] == [URL]


def test_only_the_containers_that_are_named_are_told() -> None:
    one = pod(
        annotations={"agentmemory.io/containers": "app, first"},
        initContainers=[container("first"), container("second")],
        containers=[container("app"), container("proxy")],
    )
    spec = patched(one)["spec"]
    told = [each["name"] for each in (*spec["initContainers"][1:], *spec["containers"]) if "env" in each]
    assert told == ["first", "app"]


def test_the_memory_says_image_ports_and_resources() -> None:
    sidecar = {
        "image": "mine:2",
        "port": 8000,
        "opsPort": 8001,
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}},
    }
    one = patched(pod(), memories=known(memory(sidecar=sidecar)))
    ours = sidecar_of(one)
    assert ours["image"] == "mine:2"
    assert ours["ports"][0]["containerPort"] == 8001
    assert ours["startupProbe"]["httpGet"]["port"] == ours["livenessProbe"]["httpGet"]["port"] == 8001
    assert ours["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}
    assert one["spec"]["containers"][0]["env"][0]["value"] == "http://127.0.0.1:8000"


def test_without_a_pull_policy_none_is_written() -> None:
    assert "imagePullPolicy" not in sidecar_of(patched(pod(), image=Image("a:1")))


def test_annotations_tune() -> None:
    annotations = {
        "agentmemory.io/agents": "planner, user-*",
        "agentmemory.io/sidecar-cpu-request": "100m",
        "agentmemory.io/sidecar-cpu-limit": "1",
        "agentmemory.io/sidecar-memory-request": "128Mi",
        "agentmemory.io/sidecar-memory-limit": "1Gi",
    }
    ours = sidecar_of(patched(pod(annotations=annotations)))
    assert environment(ours)["AGENTMEMORY_AGENTS"] == "planner,user-*"
    assert ours["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }


@pytest.mark.parametrize(
    ("grace", "timeout"),
    [(None, None), (3600, None), (30, None), (29, "19"), (15, "10"), (5, "3"), (2, "1"), (1, "0.5"), (0, "0.5")],
)
def test_a_short_grace_period_is_shared(grace: int | None, timeout: str | None) -> None:
    before = pod()
    if grace is not None:
        before["spec"]["terminationGracePeriodSeconds"] = grace
    one = patched(before)
    assert environment(sidecar_of(one)).get("AGENTMEMORY_STOP_TIMEOUT") == timeout
    assert one["spec"].get("terminationGracePeriodSeconds") == grace


def test_a_pod_of_a_namespace_that_asks_may_have_no_label_at_all() -> None:
    one = patched(pod(None), by_namespace=True)
    assert one["metadata"]["labels"] == {"agentmemory.io/sidecar": "research"}
    assert sidecar_of(one)


@pytest.mark.parametrize("annotations", [None, {"other/one": "1"}])
def test_a_pod_that_gets_none_says_why(annotations: dict[str, str] | None) -> None:
    before = pod("another", annotations=annotations)
    after = patched(before)
    error = after["metadata"]["annotations"].pop("agentmemory.io/injection-error")
    assert "no AgentMemory 'another'" in error
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == (annotations or {})
    assert after["metadata"]["labels"] == before["metadata"]["labels"]


def test_an_error_that_was_copied_along_goes_away() -> None:
    one = patched(pod(annotations={"agentmemory.io/injection-error": "old", "other": "1"}))
    assert one["metadata"]["annotations"] == {"other": "1"}
    assert sidecar_of(one)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(pod(None), id="did not ask"),
        pytest.param(pod("false"), id="opted out"),
        pytest.param(
            pod(labels={"agentmemory.io/sidecar": "x"}, initContainers=[container("agentmemory")]), id="has it"
        ),
    ],
)
def test_a_pod_that_is_left_alone_is_not_touched(one: Pod) -> None:
    assert patched(one) == one


def test_a_wrong_sidecar_label_is_put_right() -> None:
    memories: dict[str, Known] = known(memory(), memory("other"))
    one = patched(pod("research", labels={"agentmemory.io/sidecar": "other"}), memories=memories)
    assert one["metadata"]["labels"]["agentmemory.io/sidecar"] == "research"
    assert sidecar_of(one)


def test_the_key_of_the_provider_of_embeddings_is_mounted_beside_the_logins() -> None:
    embedding = {"provider": "OpenAI", "model": "small", "secretRef": {"name": "openai"}}
    volumes = patched(pod(), memories=known(memory(embedding=embedding)))["spec"]["volumes"]
    (projected,) = [one["projected"] for one in volumes if one["name"] == "agentmemory"]
    assert projected["sources"][-1] == {
        "secret": {"name": "openai", "items": [{"key": "api-key", "path": "embedding-api-key"}], "optional": True}
    }


def test_the_key_of_the_server_that_draws_facts_is_mounted_as_well() -> None:
    embedding = {"provider": "OpenAI", "model": "small", "secretRef": {"name": "openai"}}
    distillation = {"endpoint": "http://chat/v1", "model": "large", "secretRef": {"name": "chat", "key": "token"}}
    volumes = patched(pod(), memories=known(memory(embedding=embedding, distillation=distillation)))["spec"]["volumes"]
    (projected,) = [one["projected"] for one in volumes if one["name"] == "agentmemory"]
    assert [source["secret"]["items"] for source in projected["sources"][-2:]] == [
        [{"key": "api-key", "path": "embedding-api-key"}],
        [{"key": "token", "path": "distillation-api-key"}],
    ]


@pytest.mark.parametrize(
    ("spec", "mounted"),
    [
        ({"mode": "Redis", "postgres": {}}, ["redis-username", "redis-password"]),
        ({"mode": "Postgres", "redis": {}}, ["postgres-username", "postgres-password"]),
    ],
)
def test_only_the_logins_that_there_are_are_mounted(spec: dict[str, Any], mounted: list[str]) -> None:
    """One that is not in the Secret would keep the pod from starting."""
    assert mounted_logins(memory(**spec)) == mounted


def test_a_change_of_the_mode_that_is_refused_changes_no_pod() -> None:
    changed = resource(mode="Redis", postgres={})
    changed["status"] = {"applied": {"mode": "Hybrid", "redis": "Managed", "postgres": "Managed"}}
    assert mounted_logins(read(changed)) == mounted_logins(memory())


def mounted_logins(one: AgentMemory) -> list[str]:
    volumes = patched(pod(), memories=known(one))["spec"]["volumes"]
    (projected,) = [volume["projected"] for volume in volumes if volume["name"] == "agentmemory"]
    (secret,) = [source["secret"] for source in projected["sources"] if "secret" in source]
    return [str(item["path"]) for item in secret["items"]]
