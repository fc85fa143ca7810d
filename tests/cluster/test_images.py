"""What the images hold, looked at from inside, as the pods run them: nothing to install, build or compile with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.cluster import IMAGES, apply, wait_for
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster

PROGRAMS = {
    "image": ["agentmemory_operator.__main__", "agentmemory_operator.injector.main"],
    "sidecarImage": ["agentmemory_sidecar.__main__", "agentmemory_engine.embedding.worker"],
}
OTHERS = {
    "image": ["agentmemory", "agentmemory_sidecar"],
    "sidecarImage": ["agentmemory", "agentmemory_operator", "kopf", "kubernetes"],
}
_LOOK = """
import importlib, importlib.util, json, os, shutil, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
sources = {name: module.__spec__.cached for name, module in list(sys.modules.items())
           if getattr(module, "__spec__", None) and module.__spec__.has_location and module.__spec__.cached}
def writes(directory):
    try:
        open(os.path.join(directory, "probe"), "w").close()
    except OSError:
        return False
    return True
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "installers": [name for name in ("pip", "setuptools", "ensurepip", "wheel", "pkg_resources", "uv")
                   if importlib.util.find_spec(name)] + [name for name in ("pip", "pip3", "uv") if shutil.which(name)],
    "compilers": [name for name in ("gcc", "cc", "g++", "c++", "clang", "make", "ld", "as") if shutil.which(name)],
    "others": [name for name in sys.argv[2].split(",") if importlib.util.find_spec(name)],
    "uncompiled": sorted(name for name, cached in sources.items() if not os.path.exists(cached)),
    "loaded": len(sources),
    "writable": [place for place in ("/", "/tmp", "/opt/agentmemory", "/etc", "/var") if writes(place)],
}))
"""


def pod(image: str) -> dict[str, Any]:
    """A pod that looks about itself, under the restricted profile."""
    container = {
        "name": "look",
        "image": IMAGES[image],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _LOOK, ",".join(PROGRAMS[image]), ",".join(OTHERS[image])],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    # No user is named: that of the image has to be one that is not root, and by its number.
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": security}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": image.lower()},
        "spec": spec | {"containers": [container]},
    }


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_what_runs_and_nothing_else(namespace: str, image: str) -> None:
    body = pod(image)
    body["metadata"]["namespace"] = namespace
    apply(body)
    name = body["metadata"]["name"]
    where = ("--namespace", namespace)
    phase = ("get", "pod", name, *where, "-o", "jsonpath={.status.phase}")
    wait_for("the pod to end", lambda: kubectl(*phase) in ("Succeeded", "Failed"))
    said = kubectl("logs", name, *where)
    assert kubectl(*phase) == "Succeeded", said
    found = json.loads(said)
    assert found.pop("loaded") > 200
    assert found == {
        "user": [65532, 65532],
        "installers": [],
        "compilers": [],
        "others": [],
        "uncompiled": [],
        "writable": [],
    }
