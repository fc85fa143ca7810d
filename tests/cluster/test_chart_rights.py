"""A second release that watches one namespace: what its pods may do there, and that they may do nothing elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from support import cluster
from support.cluster import ROOT, apply, get, helm, image_values, memory_manifest, pods, settled, wait_for
from support.edits import edit
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster

CHART = ROOT / "helm" / "agentmemory"
RELEASE = "am-two"
FULL = f"{RELEASE}-agentmemory"
CERTIFICATE = "am-two-webhook-tls"
AUTHORITY = "am-two-webhook-ca"
ELSEWHERE = ("default", "kube-system")

Asked = dict[str, str]


@dataclass(frozen=True)
class Second:
    """The namespace of the release, and the one that it watches."""

    home: str
    watched: str


@pytest.fixture(scope="module")
def second(chart: None) -> Iterator[Second]:
    """The release, in namespaces under the restricted profile. It shares the CRD with the first release."""
    mark = os.urandom(4).hex()
    made = Second(f"am-two-{mark}", f"test-{mark}")
    for name in (made.home, made.watched):
        kubectl("create", "namespace", name)
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    values = (
        f"crds.install=false,watchNamespaces={{{made.watched}}},injector.certificates.secretName={CERTIFICATE},"
        "operator.replicas=1,injector.replicas=1,rbac.aggregate=false,networkPolicy.enabled=false"
    )
    try:
        helm(
            "install", RELEASE, str(CHART), "--namespace", made.home, "--set", values, *image_values(), "--wait",
            "--timeout", "4m",
        )  # fmt: skip
        yield made
    finally:
        helm("uninstall", RELEASE, "--namespace", made.home, "--wait", "--ignore-not-found")
        for name in (made.home, made.watched):
            kubectl("delete", "namespace", name, "--wait=false")


def rights(*files: str) -> list[Asked]:
    """What the rules in these files grant, as one asks for it. Rules that are bound to names are not among them."""
    rules = [rule for file in files for rule in yaml.safe_load((CHART / "files" / "rbac" / file).read_text())]
    return [
        {"group": group, "resource": resource.partition("/")[0], "subresource": resource.partition("/")[2],
         "verb": verb}
        for rule in rules
        if "resourceNames" not in rule
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]  # fmt: skip


def asked(group: str, resource: str, verb: str, name: str = "") -> Asked:
    return {"group": group, "resource": resource, "verb": verb, "name": name}


def allowed(second: Second, component: str, namespace: str, questions: list[Asked]) -> list[bool]:
    """What the API server says to each of these questions of the operator or the injector."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{second.home}", "system:authenticated"]
    reviews: list[dict[str, Any]] = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{second.home}:{FULL}-{component}",
                "groups": groups,
                "resourceAttributes": question | ({"namespace": namespace} if namespace else {}),
            },
        }
        for question in questions
    ]
    answers = kubectl(
        "create", "--filename=-", "--output=jsonpath={.status.allowed}{'\\n'}", input=yaml.safe_dump_all(reviews)
    ).split()
    assert len(answers) == len(questions)
    return [answer == "true" for answer in answers]


@pytest.mark.parametrize("component", ["operator", "injector"])
def test_it_may_do_its_work_where_it_watches(second: Second, component: str) -> None:
    questions = rights(f"{component}.yaml")
    answers = allowed(second, component, second.watched, questions)
    assert [one for one, may in zip(questions, answers, strict=True) if not may] == []


@pytest.mark.parametrize("component", ["operator", "injector"])
@pytest.mark.parametrize("namespace", [*ELSEWHERE, ""])
def test_it_may_do_nothing_of_it_elsewhere(second: Second, component: str, namespace: str) -> None:
    """Without a namespace: in all of them at once."""
    questions = [*rights(f"{component}.yaml"), asked("", "namespaces", "list")]
    answers = allowed(second, component, namespace, questions)
    assert [one for one, may in zip(questions, answers, strict=True) if may] == []


def test_at_home_it_touches_what_is_its_own_by_name(second: Second) -> None:
    own = [
        asked("coordination.k8s.io", "leases", "patch", f"{FULL}-operator"),
        *(asked("", "secrets", verb, name) for verb in ("get", "patch") for name in (CERTIFICATE, AUTHORITY)),
    ]
    assert all(allowed(second, "operator", second.home, own))
    others = [
        asked("coordination.k8s.io", "leases", "patch", "other"),
        asked("", "secrets", "get", "other"),
        asked("", "secrets", "list"),
        asked("", "pods", "list"),
        asked("apps", "deployments", "patch", f"{FULL}-operator"),
    ]
    assert not any(allowed(second, "operator", second.home, others))


def test_of_webhooks_it_changes_its_own(second: Second) -> None:
    group, resource = "admissionregistration.k8s.io", "mutatingwebhookconfigurations"
    assert all(allowed(second, "operator", "", [asked(group, resource, verb, f"{FULL}-injector") for verb in (
        "get", "patch")]))  # fmt: skip
    others = [asked(group, resource, "patch", "agentmemory-injector"), asked(group, resource, "create")]
    assert not any(allowed(second, "operator", "", others))


def test_the_injector_sees_no_secret(second: Second) -> None:
    for namespace in (second.home, second.watched):
        questions = [asked("", "secrets", verb) for verb in ("get", "list", "watch")]
        assert not any(allowed(second, "injector", namespace, questions))


def test_with_these_rights_nothing_is_refused(second: Second) -> None:
    """A memory that is paused is looked at and left alone, so that the first release's operator is not in the way."""
    paused = memory_manifest(second.watched)
    paused["metadata"]["annotations"] = {"agentmemory.io/reconcile": "disabled"}
    apply(paused)
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component="
    (operator,) = (one["metadata"]["name"] for one in pods(second.home, f"{selector}operator"))
    metrics = f"/api/v1/namespaces/{second.home}/pods/{operator}:8080/proxy/metrics"

    def looked() -> bool:
        counted = [line for line in kubectl("get", "--raw", metrics).splitlines() if "reconciliations_total{" in line]
        return sum(float(line.split()[-1]) for line in counted) >= 2

    wait_for("two looks at the memory", looked)
    for component in ("operator", "injector"):
        said = kubectl("logs", "--namespace", second.home, "--selector", selector + component, "--tail=-1")
        assert said
        assert [line for line in said.splitlines() if "forbidden" in line.lower()] == []


def test_of_a_whole_life_nothing_is_refused(namespace: str) -> None:
    """In all namespaces: every kind of object is made, found, changed and deleted. `cannot` is how rights are refused;
    other requests are forbidden in namespaces that go.
    """
    postgres = {"managed": {"storage": {"size": "256Mi"}}, "pooler": {"enabled": True}}
    apply(memory_manifest(namespace, postgres=postgres, deletionPolicy="Delete"))
    settled(namespace, seconds=300.0)
    edit(namespace, postgres={"pooler": {"enabled": False}})
    wait_for("the pooler to go", lambda: get("deployment", namespace, "research-pooler") is None)
    settled(namespace)
    kubectl("delete", "agentmemory", "research", "--namespace", namespace, "--timeout=120s")
    selector = f"app.kubernetes.io/instance={cluster.RELEASE},app.kubernetes.io/component in (operator,injector)"
    said = kubectl("logs", "--namespace", cluster.SYSTEM, "--selector", selector, "--tail=-1", "--max-log-requests=20")
    assert f"{namespace}/research" in said
    assert [line for line in said.splitlines() if "cannot" in line and "API group" in line] == []
