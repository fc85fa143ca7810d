"""The injector's certificate runs out while nobody renews it, and is renewed as soon as somebody does."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from agentmemory_operator import certificates
from support.cluster import SYSTEM, Object, agent_pod_spec, apply, get, memory_manifest, wait_for
from support.edits import no_operator, secret_of
from support.external_stores import secret
from support.kubectl import kubectl, kubectl_json

pytestmark = [pytest.mark.cluster, pytest.mark.disruptive]

INJECTOR = "agentmemory-injector"
PODS = "app.kubernetes.io/component=injector"


def injected(namespace: str) -> bool:
    """Whether a pod that asks gets its sidecar now; nothing is made."""
    labels = {"agentmemory.io/inject": "research"}
    metadata = {"name": f"asks-{os.urandom(3).hex()}", "namespace": namespace, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": agent_pod_spec(["read", "nobody"])}
    admitted = kubectl_json("create", "--dry-run=server", "--filename=-", input=json.dumps(pod))
    return "initContainers" in admitted["spec"]


def expired() -> dict[str, str]:
    """A pair that the authority in use signed long ago."""
    held = secret_of(SYSTEM, f"{INJECTOR}-ca")
    authority = certificates.Pair(held["tls.crt"], held["tls.key"])
    long_ago = datetime.now(UTC) - timedelta(days=200)
    leaf = certificates.issue(authority, [f"{INJECTOR}.{SYSTEM}.svc"], long_ago)
    return {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority.certificate}


def test_a_certificate_that_expired_is_renewed_and_pods_are_injected_again(namespace: str) -> None:
    memory: Object = memory_manifest(namespace)
    memory["metadata"]["annotations"] = {"agentmemory.io/reconcile": "disabled"}
    apply(memory)
    wait_for("injection to work", lambda: injected(namespace))
    bundle = _bundles()
    with no_operator():
        old = expired()
        assert certificates.expires(old["tls.crt"]) < datetime.now(UTC)
        apply(secret(SYSTEM, f"{INJECTOR}-tls", old) | {"type": "kubernetes.io/tls"})
        # The API server keeps the connections that it has; new injectors show what is in the Secret now.
        kubectl("delete", "pods", "--namespace", SYSTEM, "--selector", PODS)
        kubectl("rollout", "status", f"deployment/{INJECTOR}", "--namespace", SYSTEM, "--timeout=120s")
        # A pod is admitted without a sidecar rather than not at all.
        wait_for("the certificate to be refused", lambda: not injected(namespace))
    wait_for("injection to work again", lambda: injected(namespace), 180.0)
    assert certificates.expires(secret_of(SYSTEM, f"{INJECTOR}-tls")["tls.crt"]) > datetime.now(UTC)
    assert _bundles() == bundle, "the authority is the same"


def _bundles() -> list[str]:
    configuration = get("mutatingwebhookconfiguration", "", INJECTOR)
    assert configuration is not None
    return [one["clientConfig"]["caBundle"] for one in configuration["webhooks"]]
