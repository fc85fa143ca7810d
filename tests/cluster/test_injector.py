"""The injector on a real cluster: pods as the API server admits them, and as they run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.kubectl import kubectl, kubectl_json

pytestmark = pytest.mark.cluster

IMAGE = os.environ.get("AGENTMEMORY_TEST_IMAGE", "python:3.13-slim")
WAIT = "--timeout=180s"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
AGENT = """
import json, os, time, urllib.error, urllib.request
def ask(path, body):
    headers = {"AgentMemory-Client": "test", "Content-Type": "application/json", "Idempotency-Key": path}
    request = urllib.request.Request(os.environ["AGENTMEMORY_URL"] + path, json.dumps(body).encode(), headers)
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:    # a sidecar that is younger than its connections says so, and is asked again
                raise
        time.sleep(0.2)
event = {"type": "message", "role": "user", "content": "the blue door"}
turn = ask("/v1/agents/planner/turns", {"events": [event]})
woke = ask("/v1/agents/planner/hydrate", {})
print("remembered", turn["position"], woke["recent"][-1]["content"])
"""


def container(name: str = "app", *, script: str = "print('done')", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", script],
        "securityContext": RESTRICTED,
        **fields,
    }


def agent(name: str, asks: str | None, *, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that ends once its containers have."""
    metadata: dict[str, Any] = {"name": name}
    metadata |= {"labels": {"agentmemory.io/inject": asks}} if asks is not None else {}
    metadata |= {"annotations": annotations} if annotations else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"restartPolicy": "Never", "containers": [container()], **spec},
    }


def create(namespace: str, manifest: dict[str, Any], *options: str) -> tuple[dict[str, Any], str]:
    """The object as it was admitted, and what was said about it."""
    command = ["kubectl", "--namespace", namespace, "create", "--filename=-", "--output=json", *options]
    done = subprocess.run(command, input=json.dumps(manifest), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    admitted: dict[str, Any] = json.loads(done.stdout)
    return admitted, done.stderr


def tried(namespace: str, manifest: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """As `create`, but nothing is made: every admission runs, those that validate as well."""
    return create(namespace, manifest, "--dry-run=server")


def inits(pod: dict[str, Any]) -> list[str]:
    return [one["name"] for one in pod["spec"].get("initContainers", [])]


def wait(namespace: str, what: str, condition: str) -> None:
    kubectl("--namespace", namespace, "wait", what, f"--for={condition}", WAIT)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.5)


@pytest.fixture
def declared(namespace: str) -> str:
    """An AgentMemory that is never reconciled: enough for the injector, and there at once."""
    body = {
        "apiVersion": "agentmemory.io/v1alpha1",
        "kind": "AgentMemory",
        "metadata": {"name": "declared", "annotations": {"agentmemory.io/reconcile": "disabled"}},
        "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}},
    }
    create(namespace, body)
    return "declared"


@contextmanager
def labelled(namespace: str, label: str) -> Iterator[None]:
    kubectl("label", "namespace", namespace, label)
    try:
        yield
    finally:
        kubectl("label", "namespace", namespace, label.partition("=")[0] + "-")


def unrestrict(namespace: str) -> None:
    """Let pods in that the restricted profile does not."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")


def test_an_agent_remembers_and_its_pod_ends(namespace: str, memory: str) -> None:
    """The sidecar is first, so an init container has the API as well; it never keeps the pod from ending."""
    manifest = agent(
        "planner", memory, initContainers=[container("first", script=AGENT)], containers=[container(script=AGENT)]
    )
    pod, said = create(namespace, manifest)
    assert inits(pod) == ["agentmemory", "first"]
    assert pod["metadata"]["labels"]["agentmemory.io/sidecar"] == memory
    assert "agentmemory:" not in said
    wait(namespace, "pod/planner", "jsonpath={.status.phase}=Succeeded")
    for name in ("first", "app"):
        log = kubectl("--namespace", namespace, "logs", "planner", "--container", name)
        assert log.startswith("remembered ") and log.endswith("the blue door\n")


def test_a_job_completes_and_an_agent_names_only_its_own(namespace: str, memory: str) -> None:
    template = {
        "metadata": {"labels": {"agentmemory.io/inject": memory}},
        "spec": {"restartPolicy": "Never", "containers": [container(script=AGENT)]},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {"backoffLimit": 0, "template": template},
    }
    create(namespace, job)
    limits = {"agentmemory.io/agents": "somebody-else"}
    create(namespace, agent("other", memory, annotations=limits, containers=[container(script=AGENT)]))
    wait(namespace, "job/once", "condition=complete")
    (pod,) = kubectl_json("--namespace", namespace, "get", "pods", "--selector", "job-name=once")["items"]
    assert inits(pod) == ["agentmemory"]
    wait(namespace, "pod/other", "jsonpath={.status.phase}=Failed")
    assert "403" in kubectl("--namespace", namespace, "logs", "other", "--container", "app")


def test_a_pod_that_gets_none_is_told_of_everywhere(namespace: str, memory: str) -> None:
    """Warnings and an annotation by the injector; an Event and a condition by the operator, once it has looked."""
    lost, said = create(namespace, agent("lost", "nobody"))
    assert inits(lost) == []
    assert "Warning: agentmemory: there is no AgentMemory 'nobody'" in said
    port = [{"containerPort": 7070}]
    clash, said = create(
        namespace, agent("clash", memory, containers=[container(ports=port, script="import time; time.sleep(3600)")])
    )
    assert inits(clash) == []
    assert "Warning: agentmemory: container 'app' has port 7070" in said
    assert "7070" in clash["metadata"]["annotations"]["agentmemory.io/injection-error"]
    wait(namespace, "pod/lost", "jsonpath={.status.phase}=Succeeded")
    until(lambda: "7070" in _events(namespace, "clash"), "an Event on the pod")
    until(lambda: "clash" in _condition(namespace, memory), "a condition of the memory")


def _events(namespace: str, name: str) -> str:
    found = kubectl_json(
        "--namespace", namespace, "get", "events", "--field-selector", f"involvedObject.name={name},type=Warning"
    )
    return "\n".join(one["message"] for one in found["items"] if one["reason"] == "SidecarMissing")


def _condition(namespace: str, memory: str) -> str:
    conditions = kubectl_json("--namespace", namespace, "get", "agentmemory", memory)["status"]["conditions"]
    missing = [one for one in conditions if one["type"] == "SidecarsInjected" and one["status"] == "False"]
    return str(missing[0]["message"]) if missing else ""


def test_a_dry_run_is_injected_and_makes_nothing(namespace: str, declared: str) -> None:
    pod, _ = tried(namespace, agent("dry", declared))
    assert inits(pod) == ["agentmemory"]
    assert kubectl_json("--namespace", namespace, "get", "pods", "--selector", "agentmemory.io/inject")["items"] == []


def test_a_memory_and_its_agent_may_be_applied_at_once(namespace: str) -> None:
    """The pod is admitted before the injector's watch has told of the memory; so it asks the API server itself."""
    for number in range(5):
        body = {
            "apiVersion": "agentmemory.io/v1alpha1",
            "kind": "AgentMemory",
            "metadata": {"name": f"m{number}", "annotations": {"agentmemory.io/reconcile": "disabled"}},
            "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}},
        }
        items = [body, agent(f"agent-{number}", f"m{number}")]
        made = json.loads(
            kubectl(
                "--namespace", namespace, "apply", "--filename=-", "--output=json",
                input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
            )
        )  # fmt: skip
        assert inits(made["items"][1]) == ["agentmemory"]


def test_a_pod_that_does_not_ask_gets_none(namespace: str, declared: str) -> None:
    for asks in (None, "false"):
        pod, said = tried(namespace, agent("plain", asks))
        assert inits(pod) == []
        assert "agentmemory:" not in said


def test_a_namespace_may_ask_for_its_pods(namespace: str, declared: str) -> None:
    with labelled(namespace, "agentmemory.io/inject=true"):
        # The API server's own view of namespaces may be a moment old.
        until(lambda: inits(tried(namespace, agent("unlabelled", None))[0]) == ["agentmemory"], "an injected pod")
        pod, _ = tried(namespace, agent("unlabelled", None))
        assert pod["metadata"]["labels"] == {"agentmemory.io/sidecar": declared}
        named, _ = tried(namespace, agent("named", declared))
        assert inits(named) == ["agentmemory"]
        opted_out, said = tried(namespace, agent("out", "false"))
        assert inits(opted_out) == []
        assert "agentmemory:" not in said


def _quiet(**spec: Any) -> dict[str, Any]:
    return {"containers": [container()], **spec}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(_quiet(terminationGracePeriodSeconds=5), id="a short grace period"),
        pytest.param(
            _quiet(resources={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
            id="resources of the pod as a whole",
        ),
        pytest.param(
            _quiet(
                containers=[container(resources={"requests": {"cpu": "10m", "memory": "8Mi"}})],
                resources={"limits": {"memory": "64Mi"}},
            ),
            id="less for the whole than a sidecar takes",
        ),
        pytest.param(
            _quiet(initContainers=[container("proxy", restartPolicy="Always", ports=[{"containerPort": 15000}])]),
            id="another native sidecar",
        ),
        pytest.param(_quiet(volumes=[{"name": "v", "emptyDir": {}}], shareProcessNamespace=True), id="volumes"),
        pytest.param(
            _quiet(securityContext={"runAsNonRoot": True, "fsGroup": 1000, "runAsUser": 1000}), id="a group for files"
        ),
        pytest.param(_quiet(securityContext={"runAsUser": 0}), id="a pod that is root"),
        pytest.param(_quiet(automountServiceAccountToken=False, enableServiceLinks=False), id="no token"),
    ],
)
def test_the_api_server_takes_what_the_injector_makes(namespace: str, declared: str, spec: dict[str, Any]) -> None:
    unrestrict(namespace)
    pod, said = tried(namespace, agent("shape", declared, **spec))
    assert inits(pod)[0] == "agentmemory"
    assert "agentmemory:" not in said


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"hostNetwork": True}, "hostNetwork", id="host network"),
        pytest.param(
            {"os": {"name": "windows"}, "containers": [{"name": "app", "image": IMAGE}]}, "windows", id="windows"
        ),
        pytest.param(
            {"volumes": [{"name": "agentmemory", "emptyDir": {}}]}, "volume 'agentmemory'", id="a volume of that name"
        ),
    ],
)
def test_a_pod_that_cannot_have_one_is_admitted(namespace: str, declared: str, spec: dict[str, Any], says: str) -> None:
    unrestrict(namespace)
    pod, said = tried(namespace, agent("unfit", declared, **spec))
    assert "agentmemory" not in inits(pod)
    assert "Warning: agentmemory: " in said and says in said
    assert says in pod["metadata"]["annotations"]["agentmemory.io/injection-error"]


def test_the_restricted_profile_admits_an_injected_pod(namespace: str, declared: str) -> None:
    assert kubectl("get", "namespace", namespace, "--show-labels").count("enforce=restricted") == 1
    pod, said = tried(namespace, agent("restricted", declared))
    assert inits(pod) == ["agentmemory"]
    assert "violate" not in said


def test_a_quota_admits_an_injected_pod(namespace: str, declared: str) -> None:
    hard = {"requests.cpu": "8", "requests.memory": "8Gi", "limits.cpu": "16", "limits.memory": "16Gi"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": hard}}
    create(namespace, quota)
    wait(namespace, "resourcequota/all", "jsonpath={.status.hard.requests\\.cpu}=8")
    own = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}
    pod, _ = tried(namespace, agent("counted", declared, containers=[container(resources=own)]))
    assert inits(pod) == ["agentmemory"]


def test_annotations_tune_the_sidecar(namespace: str, declared: str) -> None:
    annotations = {
        "agentmemory.io/agents": "planner,user-*",
        "agentmemory.io/containers": "app",
        "agentmemory.io/sidecar-memory-limit": "1Gi",
    }
    manifest = agent("tuned", declared, annotations=annotations, containers=[container(), container("other")])
    pod, _ = tried(namespace, manifest)
    sidecar = pod["spec"]["initContainers"][0]
    assert {"name": "AGENTMEMORY_AGENTS", "value": "planner,user-*"} in sidecar["env"]
    assert sidecar["resources"]["limits"]["memory"] == "1Gi"
    assert [one["name"] for one in pod["spec"]["containers"] if "env" in one] == ["app"]
