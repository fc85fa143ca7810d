"""The injector's certificate through upgrades of the chart: what the operator wrote stays, and a mode can be left."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from support.certificates import Authority
from support.cluster import ROOT, agent_pod_spec, apply, helm, image_values, wait_for
from support.kubectl import kubectl, kubectl_json
from support.releases import restricted_namespace

pytestmark = pytest.mark.cluster

CHART = ROOT / "helm" / "agentmemory"
WEBHOOKS = "mutatingwebhookconfigurations"


class Release:
    """A release of its own, that looks after another namespace than its own and no other."""

    def __init__(self, home: str, watched: str) -> None:
        self.home = home
        self.watched = watched
        self.name = f"am-{home[-8:]}"
        self.injector = f"{self.name}-injector"

    def helm(self, program: str, command: str, *options: str) -> None:
        """Install or upgrade it."""
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on the PATH")
        values = (
            f"fullnameOverride={self.name},crds.install=false,rbac.aggregate=false,watchNamespaces={{{self.watched}}},"
            "operator.replicas=1,injector.replicas=1"
        )
        helm(
            command, "second", str(CHART), "--namespace", self.home, "--wait", "--timeout", "4m", *image_values(),
            "--set", values, *options, program=program,
        )  # fmt: skip

    def hooks(self) -> list[dict[str, Any]]:
        return list(kubectl_json("get", WEBHOOKS, self.injector)["webhooks"])

    def bundles(self) -> set[str]:
        """Those of its webhooks, in PEM; an empty one where there is none."""
        return {b64decode(hook["clientConfig"].get("caBundle", "")).decode() for hook in self.hooks()}

    def issued(self) -> str:
        """The bundle that the operator issued, once it is that of all webhooks."""
        return wait_for("a bundle in every webhook", lambda: "" if "" in (found := self.bundles()) else found.pop())

    def answers(self) -> None:
        """Until the API server believes the injector: with failurePolicy Fail it refuses the pod while it does not."""
        pod = {
            "apiVersion": "v1", "kind": "Pod", "spec": agent_pod_spec([]),
            "metadata": {"name": "asks", "labels": {"agentmemory.io/inject": "nobody"}},
        }  # fmt: skip
        create = ("create", "--namespace", self.watched, "--dry-run=server", "--output=name", "--filename=-")
        wait_for("the injector to be believed", lambda: kubectl(*create, input=json.dumps(pod)))

    def left(self) -> list[str]:
        """What is there of it, in its namespace and outside."""
        label = "--selector=app.kubernetes.io/instance=second,app.kubernetes.io/managed-by=Helm"
        kinds = "deployments,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies"
        get = ("get", label, "--output=name")
        text = kubectl(*get, f"clusterroles,clusterrolebindings,{WEBHOOKS}")
        for namespace in (self.home, self.watched):
            text += kubectl(*get, kinds, "--namespace", namespace)
        return [line for line in text.split() if self.name in line]


@pytest.fixture
def release(chart: None) -> Iterator[Release]:
    """Gone without a trace in the end. It shares the CRD with the first release."""
    with restricted_namespace() as home, restricted_namespace() as watched:
        made = Release(home, watched)
        yield made
        helm("uninstall", "second", "--namespace", home, "--wait", "--ignore-not-found")
        assert made.left() == []


@pytest.mark.parametrize(("first", "then"), [("helm", "helm"), ("helm3", "helm3"), ("helm3", "helm")])
def test_an_upgrade_leaves_the_bundle_that_the_operator_wrote(first: str, then: str, release: Release) -> None:
    release.helm(first, "install")
    issued = release.issued()
    release.helm(then, "upgrade", "--set", "injector.timeoutSeconds=7,injector.failurePolicy=Fail")
    assert release.bundles() == {issued}
    assert {(hook["timeoutSeconds"], hook["failurePolicy"]) for hook in release.hooks()} == {(7, "Fail")}
    assert len(release.left()) > 10
    helm("rollback", "second", "1", "--namespace", release.home, "--wait", program=then)
    assert release.bundles() == {issued}
    assert {(hook["timeoutSeconds"], hook["failurePolicy"]) for hook in release.hooks()} == {(5, "Ignore")}


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_from_the_operators_certificate_to_ones_own_and_back(program: str, release: Release) -> None:
    fail = ("--set", "injector.failurePolicy=Fail")
    release.helm(program, "install", *fail)
    issued = release.issued()
    release.answers()
    authority = Authority()
    certificate, key = authority.issue(f"{release.injector}.{release.home}.svc")
    apply({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "own", "namespace": release.home}, "stringData": {"tls.crt": certificate, "tls.key": key},
    })  # fmt: skip
    bundle = b64encode(authority.pem.encode()).decode()
    given = {"mode": "provided", "secretName": "own", "caBundle": bundle}
    own = ["--set-json", f"injector.certificates={json.dumps(given)}"]
    if program == "helm":
        with pytest.raises(AssertionError, match='conflicts with "agentmemory-operator"'):
            release.helm(program, "upgrade", *fail, *own)
        assert release.bundles() == {issued}
        own.append("--force-conflicts")
    release.helm(program, "upgrade", *fail, *own)
    assert release.bundles() == {authority.pem}
    release.answers()
    release.helm(program, "upgrade", *fail)
    assert release.issued() == issued
    release.answers()
