"""A decision as a JSON patch (RFC 6902) of the pod.

The sidecar is a *native* one: an init container that is restarted, and the first of them, so that every other container
of the pod, init containers included, finds the API there. The kubelet stops such containers last, in reverse order,
once every container of the app has ended: what the app writes while it stops still reaches the sidecar, which then
flushes. That order needs no preStop hook, and a Job completes with the sidecar running.

The app and then the sidecar share the pod's grace period. The sidecar ends as soon as it has flushed; its time to stop
is only a bound, and what is pending then stays in the journal. Under a short grace period that bound is brought below
it, so that the sidecar gives its shards back rather than be killed; the grace period is the pod's own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentmemory_operator.changes import with_applied_stores
from agentmemory_operator.injector.decision import Decision, Inject, Leave, Miss
from agentmemory_operator.injector.wishes import Pod, annotations_of
from agentmemory_operator.names import INJECTION_ERROR_ANNOTATION, SIDECAR_CONTAINER, SIDECAR_LABEL
from agentmemory_operator.resources import sidecar as parts

Operation = dict[str, Any]

URL_VARIABLE = "AGENTMEMORY_URL"
OPS_PORT_NAME = "agentmemory-ops"
_STOP_TIMEOUT = 20
"""Seconds that a sidecar takes to stop at most, unless it is told otherwise."""
_GRACE_PERIOD = 30
"""The pod's, in seconds, unless it says otherwise."""


@dataclass(frozen=True)
class Image:
    """The sidecar's image where the AgentMemory names none. An empty policy is the API server's choice."""

    name: str
    pull_policy: str = ""


def patch(pod: Pod, decision: Decision, image: Image) -> list[Operation]:
    """The operations that carry a decision out on the pod it was made for; none where nothing is to be done."""
    match decision:
        case Leave():
            return []
        case Miss(message=message):
            return [_put(pod, "annotations", INJECTION_ERROR_ANNOTATION, message)]
        case Inject():
            return [
                *_forget_error(pod),
                _put(pod, "labels", SIDECAR_LABEL, decision.memory.name),
                *_urls(pod, decision),
                *_append(pod, "volumes", _volumes(decision)),
                *_append(pod, "initContainers", [sidecar_container(pod, decision, image)], first=True),
            ]


def sidecar_container(pod: Pod, decision: Inject, image: Image) -> dict[str, Any]:
    """The sidecar. It satisfies the `restricted` Pod Security Standard by itself, whatever the pod says."""
    sidecar = decision.memory.spec.sidecar
    container = {
        "name": SIDECAR_CONTAINER,
        "image": sidecar.image or image.name,
        "args": ["serve"],
        "restartPolicy": "Always",
        "ports": [{"name": OPS_PORT_NAME, "containerPort": sidecar.ops_port, "protocol": "TCP"}],
        "env": _environment(pod, decision),
        "resources": decision.resources,
        # The API listens before the stores are asked: their outage keeps no agent from starting.
        "startupProbe": _probe(sidecar.ops_port, period=1, failures=120),
        "livenessProbe": _probe(sidecar.ops_port, period=10, failures=6),
        "securityContext": parts.security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": parts.mounts(),
    }
    return container | ({"imagePullPolicy": image.pull_policy} if image.pull_policy else {})


def _volumes(decision: Inject) -> list[dict[str, Any]]:
    memory = decision.memory
    # Of the mode that runs: another one in the spec is refused, and there are no logins for it.
    stores = with_applied_stores(memory).spec.stores
    return parts.volumes(memory.name, parts.api_keys(memory.spec), stores=stores)


def _environment(pod: Pod, decision: Inject) -> list[dict[str, Any]]:
    values = {"AGENTMEMORY_AGENTS": decision.wishes.agents, "AGENTMEMORY_STOP_TIMEOUT": _stop_timeout(pod)}
    return [*parts.environment(), *({"name": name, "value": value} for name, value in values.items() if value)]


def _stop_timeout(pod: Pod) -> str:
    """Seconds, where they have to differ from the sidecar's own: of a short grace period it takes the share that it has
    of the usual one, and leaves the rest to the app."""
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    if grace is None or grace >= _GRACE_PERIOD:
        return ""
    share = grace * _STOP_TIMEOUT / _GRACE_PERIOD
    return str(int(share)) if share >= 1 else "0.5"


def _probe(port: int, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/healthz", "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _urls(pod: Pod, decision: Inject) -> list[Operation]:
    value = {"name": URL_VARIABLE, "value": f"http://127.0.0.1:{decision.memory.spec.sidecar.port}"}
    wanted = decision.wishes.containers
    operations = []
    for member in ("initContainers", "containers"):
        for index, container in enumerate(pod["spec"].get(member) or []):
            environment = container.get("env") or []
            if (wanted and container["name"] not in wanted) or any(one["name"] == URL_VARIABLE for one in environment):
                continue
            path = f"/spec/{member}/{index}/env"
            # In front, so that other variables may refer to it.
            operations.append(_add(f"{path}/0", value) if environment else _add(path, [value]))
    return operations


def _append(pod: Pod, member: str, items: list[dict[str, Any]], *, first: bool = False) -> list[Operation]:
    if not pod["spec"].get(member):
        return [_add(f"/spec/{member}", items)]
    return [_add(f"/spec/{member}/{0 if first else '-'}", item) for item in items]


def _put(pod: Pod, member: str, name: str, value: str) -> Operation:
    """A label or an annotation."""
    if not pod["metadata"].get(member):
        return _add(f"/metadata/{member}", {name: value})
    return _add(f"/metadata/{member}/{_escaped(name)}", value)


def _forget_error(pod: Pod) -> list[Operation]:
    """A pod copied from one that got no sidecar has its error with it."""
    if INJECTION_ERROR_ANNOTATION not in annotations_of(pod):
        return []
    return [{"op": "remove", "path": f"/metadata/annotations/{_escaped(INJECTION_ERROR_ANNOTATION)}"}]


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
