"""kubectl as tests use it: it takes its cluster from KUBECONFIG."""

from __future__ import annotations

import json
import subprocess
from typing import Any


class KubectlError(AssertionError):
    """kubectl ended with a failure; the message is what it said."""


def kubectl(*args: str, input: str | None = None, check: bool = True) -> str:
    """What the command printed. Raises KubectlError where it fails; without `check`, what it complained of is answered
    behind what it printed.
    """
    done = subprocess.run(("kubectl", *args), input=input, capture_output=True, text=True, check=False, timeout=300)
    if check and done.returncode != 0:
        raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout if check else done.stdout + done.stderr


def kubectl_json(*args: str, input: str | None = None) -> Any:
    """The object that the command prints. Raises KubectlError where it fails."""
    return json.loads(kubectl(*args, "--output=json", input=input))
