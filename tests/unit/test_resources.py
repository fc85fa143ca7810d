"""What holds for all that the operator makes: owners, labels, security, secrecy, normal form."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmemory_operator import names
from agentmemory_operator.resources import common, issuer, pods, sidecar
from agentmemory_operator.resources.common import Manifest
from agentmemory_operator.spec import KeyRef
from support import resources as made
from support.resources import everything, memory
from support.restricted import leaves, violations
from support.start_scripts import substituted

SCRIPTS = ("redis-start.sh", "redis-probe.sh", "postgres-start.sh", "postgres-probe.sh", "pooler-start.sh")
PLACEMENT: dict[str, Any] = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
    "priorityClassName": "high",
    "imagePullSecrets": [{"name": "registry"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
}


def quantities() -> st.SearchStrategy[str]:
    return st.builds("{}{}".format, st.integers(1, 4000), st.sampled_from(["Mi", "Gi", "M", "G"]))


def managed(**more: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "image": st.sampled_from(["a/b:1", "c@sha256:0"]),
            "storage": st.fixed_dictionaries({"size": quantities()}, optional={"storageClass": st.just("fast")}),
            "resources": st.fixed_dictionaries({"limits": st.fixed_dictionaries({"memory": quantities()})}),
            "podDisruptionBudget": st.fixed_dictionaries({"enabled": st.booleans()}),
            **{name: st.just(value) for name, value in PLACEMENT.items()},
            **more,
        },
    )


def specs() -> st.SearchStrategy[dict[str, Any]]:
    pooler = st.fixed_dictionaries(
        {"enabled": st.just(True)}, optional={"instances": st.integers(1, 5), "poolSize": st.integers(1, 100)}
    )
    parameters = st.dictionaries(st.sampled_from(["work_mem", "jit", "max_connections"]), st.just("7"))
    return st.fixed_dictionaries(
        {
            "redis": st.fixed_dictionaries({"managed": managed()}),
            "postgres": st.fixed_dictionaries({"managed": managed(parameters=parameters), "pooler": pooler}),
        },
        optional={
            "deletionPolicy": st.sampled_from(["Retain", "Delete"]),
            "monitoring": st.fixed_dictionaries({"enabled": st.booleans()}),
            "tls": st.just({"issuerRef": {"name": "corporate"}}),
        },
    )


@settings(max_examples=60, deadline=None)
@given(specs())
def test_every_manifest_is_labelled_restricted_and_in_normal_form(spec: dict[str, Any]) -> None:
    one = memory(**spec)
    manifests = [*everything(one), *issuer.manifests(one)]
    for manifest in manifests:
        assert manifest["metadata"]["namespace"] == "team"
        assert manifest["metadata"]["labels"][names.MEMORY_LABEL] == "research"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == names.MANAGER
        nothing = [path for path, value in leaves(manifest) if value in (None, {}, [])]
        assert nothing == []
        assert json.loads(json.dumps(manifest)) == manifest
    for pod in made.pods(manifests):
        assert violations(pod["spec"]) == []
        assert pod["metadata"]["labels"][names.INJECT_LABEL] == "false"
    assert len({(one["kind"], one["metadata"]["name"]) for one in manifests}) == len(manifests)


@settings(max_examples=30, deadline=None)
@given(specs())
def test_one_spec_has_one_output(spec: dict[str, Any]) -> None:
    assert json.dumps(everything(memory(**spec))) == json.dumps(everything(memory(**spec)))


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_what_is_of_value_goes_with_the_memory_only_when_asked(policy: str) -> None:
    one = memory(deletionPolicy=policy, tls={"issuerRef": {"name": "corporate"}})
    for manifest in [*everything(one), *issuer.manifests(one)]:
        component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
        of_value = component in ("redis", "postgres")
        references = manifest["metadata"].get("ownerReferences", [])
        assert references == ([] if of_value and policy == "Retain" else common.owner(one)), manifest["kind"]
    (reference,) = common.owner(one)
    assert reference == {
        "apiVersion": "agentmemory.io/v1alpha1", "kind": "AgentMemory", "name": "research", "uid": "u-1",
        "controller": True,
    }  # fmt: skip
    assert common.meta(one, "x", "y", owned=True)["ownerReferences"] == [reference]
    assert ("ownerReferences" in common.meta(one, "x", "y", owned=False)) is (policy == "Delete")


def test_no_secret_stands_anywhere_but_in_the_poolers_secret() -> None:
    for manifest in everything(memory()):
        text = json.dumps(manifest)
        if manifest["kind"] == "Secret":
            text = b64decode(manifest["data"]["userlist.txt"]).decode()
            assert text == '"team_1" "first-secret"\n"team_2" "second-secret"\n'
        else:
            assert "first-secret" not in text and "second-secret" not in text
    assert "first-secret" not in repr(made.LOGINS)


def test_selectors_find_the_pods_of_their_own_component_alone() -> None:
    def chosen(manifest: Manifest) -> dict[str, str]:
        selector = manifest["spec"].get("selector") or manifest["spec"].get("podSelector")
        found: dict[str, str] = selector.get("matchLabels", selector)
        return found

    manifests = everything(memory())
    templates = [one for one in manifests if "template" in one.get("spec", {})]
    for manifest in manifests:
        if manifest["kind"] in ("Secret", "ConfigMap", "Job"):
            continue
        matched = [
            template["metadata"]["name"]
            for template in templates
            if chosen(manifest).items() <= template["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert matched == [manifest["metadata"]["name"]], manifest["kind"]


@pytest.mark.parametrize("store", ["redis", "postgres", "pooler"])
def test_placement_is_handed_on_to_the_pods(store: str) -> None:
    spec: dict[str, Any] = {"redis": {"managed": {}}, "postgres": {"managed": {}, "pooler": {"enabled": True}}}
    if store == "pooler":
        spec["postgres"]["pooler"] |= PLACEMENT
    else:
        spec[store]["managed"] |= PLACEMENT
    for pod in made.pods(everything(memory(**spec))):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        handed_on = {name: pod["spec"].get(name) for name in PLACEMENT}
        assert (handed_on == PLACEMENT) is (component == store)


@pytest.mark.parametrize("name", SCRIPTS)
def test_kubernetes_leaves_scripts_as_they_are(name: str) -> None:
    command = pods.shell(name)
    assert command[:2] == ["/bin/sh", "-c"] and command[3] == name.removesuffix(".sh")
    assert substituted(command[2], {"PATH": "/bin", "HOME": "/root"}) == command[2]
    assert "set -eu\n" in command[2]


@given(st.text())
def test_a_literal_survives_substitution(text: str) -> None:
    assert substituted(pods.literal(text), {"HOME": "/root", "": "nothing"}) == text


def test_hosts_of_a_service_begin_with_its_name() -> None:
    one = memory()
    assert common.hosts(one, "redis") == [
        "research-redis", "research-redis.team", "research-redis.team.svc", "research-redis.team.svc.cluster.local",
    ]  # fmt: skip
    assert common.host(one, "redis") in common.hosts(one, "redis")


def test_certificates_are_asked_for_what_runs_and_only_of_a_named_issuer() -> None:
    assert issuer.manifests(memory()) == []
    external = {"external": {"host": "db", "secretRef": {"name": "db"}}}
    tls = {"issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}}
    (redis,) = issuer.manifests(memory(tls=tls, postgres=external))
    assert redis["spec"]["secretName"] == redis["metadata"]["name"] == "research-redis-tls"
    assert redis["spec"]["issuerRef"] == {"name": "corporate", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert redis["spec"]["dnsNames"] == common.hosts(memory(), "redis")
    pooled = issuer.manifests(memory(tls=tls, postgres={"managed": {}, "pooler": {"enabled": True}}))
    assert [one["metadata"]["name"] for one in pooled] == [
        "research-redis-tls", "research-postgres-tls", "research-pooler-tls",
    ]  # fmt: skip


def test_a_sidecar_mounts_its_own_logins_and_no_more_of_the_secret() -> None:
    projected, scratch = sidecar.volumes("research")
    config, logins = projected["projected"]["sources"]
    assert config == {"configMap": {"name": "research-sidecar"}}
    assert logins["secret"]["name"] == "research-credentials"
    assert [item["key"] for item in logins["secret"]["items"]] == [
        "redis-username", "redis-password", "postgres-username", "postgres-password",
    ]  # fmt: skip
    with_key, _ = sidecar.volumes("research", {sidecar.EMBEDDING_KEY: KeyRef(name="openai", key="token")})
    assert with_key["projected"]["sources"] == [
        config,
        logins,
        {"secret": {"name": "openai", "items": [{"key": "token", "path": "embedding-api-key"}], "optional": True}},
    ]
    mounted = {mount["name"] for mount in sidecar.mounts()}
    assert mounted == {projected["name"], scratch["name"]}
    container = {"name": "agentmemory", "securityContext": sidecar.security_context()}
    pod = {"containers": [container], "automountServiceAccountToken": False, "enableServiceLinks": False}
    assert violations(pod) == []
