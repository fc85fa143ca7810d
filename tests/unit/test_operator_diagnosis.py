from __future__ import annotations

from typing import Any

import pytest

from agentmemory_operator.diagnosis import explain, is_ready
from agentmemory_operator.errors import Blocked, OperatorFault, Waiting

NAME = "research-redis"


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"{NAME}-0"}, "status": status}


def claim(phase: str = "Bound", storage_class: str | None = "standard") -> dict[str, Any]:
    spec = {} if storage_class is None else {"storageClassName": storage_class}
    return {"metadata": {"name": f"data-{NAME}-0"}, "spec": spec, "status": {"phase": phase}}


def container(**state: Any) -> dict[str, Any]:
    return pod(containerStatuses=[{"name": "redis", "image": "redis:8", "ready": False} | state])


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return container(state={"waiting": {"reason": reason, "message": message}})


def ended(reason: str, message: str, *, looping: bool = True) -> dict[str, Any]:
    state = {"waiting": {"reason": "CrashLoopBackOff"}} if looping else {"running": {}}
    last = {"terminated": {"exitCode": 1, "reason": reason, "message": message}}
    return container(state=state, lastState=last)


def diagnose(
    found: dict[str, Any] | None, volume: dict[str, Any] | None = None, warnings: tuple[dict[str, Any], ...] = (),
    classes: tuple[str, ...] = ("standard",),
) -> OperatorFault:  # fmt: skip
    return explain(NAME, found, volume or claim(), list(warnings), classes=set(classes))


@pytest.mark.parametrize(
    ("fault", "reason", "says"),
    [
        (diagnose(None), "Starting", NAME),
        (diagnose(pod()), "Starting", f"{NAME}-0"),
        (diagnose(pod(), claim("Pending", "gold")), "StorageClassMissing", "gold"),
        (diagnose(pod(), claim("Pending", None), classes=()), "StorageClassMissing", "default"),
        (diagnose(waiting("ImagePullBackOff", "no such image")), "ImagePullFailed", "redis:8"),
        (diagnose(waiting("InvalidImageName")), "ImagePullFailed", "imagePullSecrets"),
        (diagnose(waiting("CreateContainerConfigError", "secret gone")), "PodMisconfigured", "secret gone"),
        (diagnose(ended("Error", "")), "CrashLooping", "kubectl logs"),
        (diagnose(ended("OOMKilled", "")), "CrashLooping", "OOMKilled"),
        (diagnose(ended("Error", "cannot write to /data")), "CrashLooping", "cannot write to /data"),
        (diagnose(ended("Error", "major-version-mismatch: data of 16")), "MajorVersionMismatch", "data of 16"),
        (diagnose(ended("Error", "program-missing: no postgres")), "ProgramMissing", "no postgres"),
        (diagnose(ended("Error", "", looping=False)), "Starting", "is starting"),
        (diagnose(None, warnings=({"reason": "FailedCreate", "message": "exceeded quota: q"},)), "QuotaExceeded", "q"),
        (diagnose(None, warnings=({"reason": "FailedCreate", "message": "violates PodSecurity"},)), "PodForbidden",
         "violates PodSecurity"),
    ],
)  # fmt: skip
def test_why_a_pod_is_not_ready(fault: OperatorFault, reason: str, says: str) -> None:
    assert fault.reason == reason
    assert says in str(fault)
    assert isinstance(fault, Waiting if reason == "Starting" else Blocked)


@pytest.mark.parametrize(
    ("message", "phase", "reason"),
    [
        ("0/1 nodes: insufficient memory", "Bound", "Unschedulable"),
        ("pod has unbound immediate PersistentVolumeClaims", "Pending", "VolumePending"),
    ],
)
def test_no_node_for_it(message: str, phase: str, reason: str) -> None:
    unscheduled = pod(conditions=[{"type": "PodScheduled", "status": "False", "message": message}])
    fault = diagnose(unscheduled, claim(phase))
    assert (fault.reason, message in str(fault)) == (reason, True)


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"observedGeneration": 2, "readyReplicas": 1, "updatedReplicas": 1}, True),
        ({"observedGeneration": 1, "readyReplicas": 1, "updatedReplicas": 1}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1}, False),
        ({"observedGeneration": 2, "readyReplicas": 1, "updatedReplicas": 0}, False),
        ({}, False),
    ],
)
def test_ready_is_the_pod_of_the_present_template(status: dict[str, int], ready: bool) -> None:
    assert is_ready({"metadata": {"generation": 2}, "status": status}) is ready
