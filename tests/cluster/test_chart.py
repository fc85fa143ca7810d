"""The chart under both Helms: what it renders, what the API server says to that, and what an uninstallation leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from support.cluster import ROOT, SYSTEM, helm, install_chart, settled, wait_for
from support.kubectl import KubectlError, kubectl, kubectl_json
from support.releases import restricted_namespace

pytestmark = pytest.mark.cluster

Object = dict[str, Any]
CHART = ROOT / "helm" / "agentmemory"
CRD = "agentmemories.agentmemory.io.yaml"
DIGEST = "sha256:" + "0123456789abcdef" * 4
MONITORING = "monitoring.coreos.com/v1"
KUBERNETES = "1.34.0"
"""What is rendered for, unless a test says another version: a Helm made by hand believes in any."""
EVERYTHING: Object = {
    "commonLabels": {"team": "memory"},
    "commonAnnotations": {"contact": "sre"},
    "fullnameOverride": "am",
    "image": {"digest": DIGEST, "pullPolicy": "Always"},
    "sidecarImage": {"repository": "mirror:5000/sidecar", "tag": "1"},
    "imagePullSecrets": [{"name": "mirror"}],
    "logLevel": "DEBUG",
    "logFormat": "text",
    "rbac": {"aggregate": True},
    "serviceAccounts": {"annotations": {"cloud": "role"}},
    "monitoring": {"podMonitors": True, "labels": {"prometheus": "main"}},
    "injector": {"failurePolicy": "Fail", "timeoutSeconds": 3, "port": 10250},
}
for _name in ("operator", "injector"):
    EVERYTHING[_name] = EVERYTHING.get(_name, {}) | {
        "replicas": 3,
        "extraEnv": [{"name": "PYTHONMALLOC", "value": "malloc"}],
        "podAnnotations": {"mesh": "false"},
        "podLabels": {"tier": "control"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}},
        ],
        "priorityClassName": "system-cluster-critical",
    }

VALUES: dict[str, Object] = {
    "defaults": {},
    "everything": EVERYTHING,
    "nothing": {
        "crds": {"install": False},
        "rbac": {"aggregate": False},
        "networkPolicy": {"enabled": False},
        "injector": {"podDisruptionBudget": {"enabled": False}, "replicas": 1},
        "operator": {"replicas": 1, "resources": {}},
    },
    "crd-goes": {"crds": {"keep": False}},
    "two-namespaces": {"watchNamespaces": ["red", "blue"]},
    "cert-manager": {
        "injector": {"certificates": {"mode": "cert-manager", "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}}}
    },
    "provided": {"injector": {"certificates": {"mode": "provided", "secretName": "own", "caBundle": "QQ=="}}},
}
REFUSED = {
    "unknown-value": ({"replicas": 2}, ["replicas", "not allowed"]),
    "unknown-member": ({"operator": {"replica": 2}}, ["/operator", "replica", "not allowed"]),
    "a-word-for-a-number": ({"operator": {"replicas": "two"}}, ["/operator/replicas", "want integer"]),
    "fewer-than-none": ({"injector": {"replicas": -1}}, ["/injector/replicas", "minimum"]),
    "failure-policy": ({"injector": {"failurePolicy": "Never"}}, ["/injector/failurePolicy", "'Ignore', 'Fail'"]),
    "timeout": ({"injector": {"timeoutSeconds": 31}}, ["/injector/timeoutSeconds", "maximum"]),
    "port-of-the-probes": ({"injector": {"port": 8080}}, ["injector.port is 8080", "give another one"]),
    "digest-without-algorithm": ({"image": {"digest": "0" * 64}}, ["/image/digest", "sha256"]),
    "mode": ({"injector": {"certificates": {"mode": "auto"}}}, ["/injector/certificates/mode", "'self-managed'"]),
    "no-authority": ({"injector": {"certificates": {"mode": "provided"}}}, ["needs injector.certificates.caBundle"]),
    "no-issuer": (
        {"injector": {"certificates": {"mode": "cert-manager"}}}, ["needs injector.certificates.issuerRef.name"],
    ),
    "namespace-with-a-capital": ({"watchNamespaces": ["Red"]}, ["/watchNamespaces/0", "pattern"]),
    "a-secret-by-its-bare-name": ({"imagePullSecrets": ["mirror"]}, ["/imagePullSecrets/0", "want object"]),
}  # fmt: skip


@pytest.fixture(params=["helm", "helm3"])
def program(request: pytest.FixtureRequest) -> str:
    """Helm 4 and Helm 3."""
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on the PATH")
    return name


def template(program: str, values: Object, *options: str, namespace: str = SYSTEM) -> list[Object]:
    """The objects that the chart renders to. Raises AssertionError with what Helm complained of."""
    text = helm(
        "template", "am", str(CHART), "--namespace", namespace, "--api-versions", MONITORING,
        "--kube-version", KUBERNETES, *with_values(values), *options, program=program,
    )  # fmt: skip
    return [one for one in yaml.safe_load_all(text) if one]


def with_values(values: Object) -> list[str]:
    return [part for name, value in values.items() for part in ("--set-json", f"{name}={json.dumps(value)}")]


def key(one: Object) -> tuple[str, str, str]:
    """What an object is told by."""
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def containers(objects: list[Object]) -> list[Object]:
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"]
    return [container for pod in pods for container in pod["containers"]]


def environment(objects: list[Object], name: str) -> dict[str, Any]:
    container = next(one for one in containers(objects) if one["name"] == name)
    return {one["name"]: one.get("value") for one in container["env"]}


def webhooks(objects: list[Object]) -> list[Object]:
    (configuration,) = (one for one in objects if one["kind"] == "MutatingWebhookConfiguration")
    return list(configuration["webhooks"])


def test_it_passes_the_linter(program: str) -> None:
    helm("lint", "--strict", str(CHART), program=program)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_it_renders(program: str, values: Object) -> None:
    objects = template(program, values)
    names = [key(one) for one in objects]
    assert len(names) == len(set(names)), "an object is there twice"
    for one in objects:
        expected = {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/part-of": "agentmemory"}
        assert (expected | values.get("commonLabels", {})).items() <= one["metadata"]["labels"].items(), one["kind"]
    assert [one["name"] for one in containers(objects)] == ["injector", "operator"]


def test_both_helms_render_the_same() -> None:
    for name in ("helm", "helm3"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not on the PATH")
    for values in VALUES.values():
        assert sorted(template("helm", values), key=key) == sorted(template("helm3", values), key=key)


def test_from_which_kubernetes_on(program: str) -> None:
    for version in ("1.29.0", "v1.31.5-gke.1024000"):
        assert template(program, {}, "--kube-version", version)
    with pytest.raises(AssertionError, match=r"requires kubeVersion: >=1\.29\.0-0"):
        template(program, {}, "--kube-version", "1.28.15")


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_value_is_refused_by_its_name(program: str, values: Object, words: list[str]) -> None:
    with pytest.raises(AssertionError) as refusal:
        template(program, values)
    said = str(refusal.value)
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_api_server_takes_what_is_rendered(program: str, values: Object, room: str) -> None:
    objects = template(program, values, namespace=room)
    there = set(kubectl("api-resources", "--no-headers", "-o", "name").split())
    for one in objects:
        one["metadata"] |= {"namespace": room} if one["metadata"].get("namespace") or _is_namespaced(one) else {}
    known = [one for one in objects if one["kind"] not in _ABSENT or _ABSENT[one["kind"]] in there]
    # Another manager may hold the CRD, and a warning (of the restricted profile, of a field that goes) is an error.
    kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--warnings-as-errors",
        "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": known}),
    )  # fmt: skip


_ABSENT = {"PodMonitor": "podmonitors.monitoring.coreos.com", "Certificate": "certificates.cert-manager.io"}
"""Kinds that a cluster need not have."""


def _is_namespaced(one: Object) -> bool:
    return one["kind"] not in (
        "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration",
    )  # fmt: skip


@pytest.fixture
def room() -> Iterator[str]:
    with restricted_namespace() as name:
        yield name


def test_the_crd_is_rendered_whole(program: str) -> None:
    whole = yaml.safe_load((ROOT / "crds" / CRD).read_text())
    for keep in (True, False):
        objects = template(program, {"crds": {"keep": keep}})
        (crd,) = (one for one in objects if one["kind"] == "CustomResourceDefinition")
        assert crd["spec"] == whole["spec"]
        assert crd["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == ("keep" if keep else None)


def test_what_is_set_arrives(program: str) -> None:
    objects = template(program, EVERYTHING)
    for container in containers(objects):
        assert container["image"] == f"agentmemory/operator@{DIGEST}"
        assert {"name": "PYTHONMALLOC", "value": "malloc"} in container["env"]
    for pod in (one["spec"]["template"] for one in objects if one["kind"] == "Deployment"):
        assert pod["metadata"]["labels"]["tier"] == "control"
        assert pod["metadata"]["labels"]["agentmemory.io/inject"] == "false"
        assert pod["spec"]["priorityClassName"] == "system-cluster-critical"
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
        assert pod["spec"]["tolerations"] == [{"key": "system", "operator": "Exists"}]
        mine = {"matchLabels": {"app.kubernetes.io/component": pod["spec"]["containers"][0]["name"]}}
        zones, racks = pod["spec"]["topologySpreadConstraints"]
        assert zones["topologyKey"] == "topology.kubernetes.io/zone"
        assert mine["matchLabels"].items() <= zones["labelSelector"]["matchLabels"].items()
        assert racks["labelSelector"] == {}
    assert environment(objects, "operator")["AGENTMEMORY_SIDECAR_IMAGE"] == "mirror:5000/sidecar:1"
    assert environment(objects, "injector")["AGENTMEMORY_WEBHOOK_PORT"] == "10250"
    assert {hook["failurePolicy"] for hook in webhooks(objects)} == {"Fail"}
    monitors = [one for one in objects if one["kind"] == "PodMonitor"]
    assert [one["metadata"]["labels"]["prometheus"] for one in monitors] == ["main"] * 3


def test_without_the_prometheus_operator_there_are_no_monitors(program: str) -> None:
    wanted = ("--kube-version", KUBERNETES, "--set", "monitoring.podMonitors=true")
    text = helm("template", "am", str(CHART), *wanted, program=program)
    assert "kind: PodMonitor" not in text


def test_each_kind_of_pod_is_asked_about_once(program: str) -> None:
    """A pod with a label of its own is the first webhook's affair, one without is the second's, `false` is nobody's."""
    hooks = {hook["clientConfig"]["service"]["path"]: hook for hook in webhooks(template(program, {}))}
    assert hooks["/inject"]["objectSelector"]["matchExpressions"] == [
        {"key": "agentmemory.io/inject", "operator": "Exists"},
        {"key": "agentmemory.io/inject", "operator": "NotIn", "values": ["false"]},
    ]
    assert hooks["/inject-namespace"]["objectSelector"]["matchExpressions"] == [
        {"key": "agentmemory.io/inject", "operator": "DoesNotExist"}
    ]
    for hook in hooks.values():
        never = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", SYSTEM]}
        assert never in hook["namespaceSelector"]["matchExpressions"]


def test_the_bundle_is_named_only_where_it_is_the_users(program: str) -> None:
    for mode, bundle, keeper in (
        ("defaults", None, "am-agentmemory-injector"), ("cert-manager", None, None), ("provided", "QQ==", None),
    ):  # fmt: skip
        objects = template(program, VALUES[mode], "--set", "fullnameOverride=am-agentmemory")
        assert {hook["clientConfig"].get("caBundle") for hook in webhooks(objects)} == {bundle}
        # An operator that is not told of the webhooks leaves them alone.
        assert environment(objects, "operator").get("AGENTMEMORY_WEBHOOK_CONFIGURATION") == keeper
        assert ("kind: Certificate" in yaml.dump_all(objects)) == (mode == "cert-manager")


def test_with_a_list_of_namespaces_rights_end_there(program: str) -> None:
    objects = template(program, VALUES["two-namespaces"] | {"rbac": {"aggregate": False}})
    cluster_wide = {
        resource
        for one in objects
        if one["kind"] == "ClusterRole"
        for rule in one["rules"]
        for resource in rule["resources"]
    }
    assert cluster_wide == {"storageclasses", "mutatingwebhookconfigurations"}
    roles = {(one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects if one["kind"] == "Role"}
    assert {where for where, _ in roles} == {"red", "blue", None}
    for hook in webhooks(objects):
        only = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["red", "blue"]}
        assert only in hook["namespaceSelector"]["matchExpressions"]


def test_the_clusters_own_roles_cover_memories(chart: None, room: str) -> None:
    may = {"view": {"get", "list", "watch"}, "edit": {"get", "list", "watch", "create", "update", "patch", "delete"}}
    may["admin"] = may["edit"]
    for role, verbs in may.items():
        kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user=test-{role}", "--namespace", room)
        for verb in sorted(may["admin"]):
            ask = ("auth", "can-i", verb, "agentmemories.agentmemory.io", f"--as=test-{role}", "--namespace", room)
            expected = "yes" if verb in verbs else "no"
            wait_for(f"{role} may {verb}: {expected}", partial(_answers, expected, *ask), 30.0)


def _answers(expected: str, *command: str) -> bool:
    """Whether kubectl says so: `no` is also a failure of the command."""
    done = subprocess.run(("kubectl", *command), capture_output=True, text=True, check=False)
    return done.stdout.strip() == expected


@pytest.mark.disruptive
def test_uninstalling_leaves_memories_and_data_and_installing_finds_them(
    program: str, memory: str, namespace: str
) -> None:
    before = kubectl_json("get", "agentmemory", memory, "--namespace", namespace)["metadata"]["uid"]
    helm("uninstall", "agentmemory", "--namespace", SYSTEM, "--wait", program=program)
    try:
        with pytest.raises(KubectlError, match="not found"):
            kubectl("get", "deployment", "agentmemory-operator", "--namespace", SYSTEM)
        assert kubectl_json("get", "agentmemory", memory, "--namespace", namespace)["metadata"]["uid"] == before
        for store in ("redis", "postgres"):
            kubectl("rollout", "status", f"statefulset/{memory}-{store}", "--namespace", namespace, "--timeout=60s")
    finally:
        install_chart()
    kubectl("patch", "agentmemory", memory, "--namespace", namespace, "--type=merge",
            "--patch", json.dumps({"spec": {"workingMemory": {"ttl": "2h"}}}))  # fmt: skip
    settled(namespace, memory)
