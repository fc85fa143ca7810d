"""Whether a cluster that is meant for tests is at hand: kubectl, and a current context by whose name it is one."""

from __future__ import annotations

import re
import subprocess
import sys

_FOR_TESTS = re.compile(r"kind-.+|agentmemory")


def why_none(kubectl: str = "kubectl") -> str | None:
    """Why the cluster tests cannot run, and what helps; None where they can.

    A cluster that is at hand and does not answer is no reason: then the tests fail.
    """
    try:
        done = subprocess.run((kubectl, "config", "current-context"), capture_output=True, text=True, check=False)
    except OSError:
        return "there is no kubectl"
    context = done.stdout.strip()
    if not context:
        return "KUBECONFIG names no cluster: `make cluster` brings one up"
    if not _FOR_TESTS.fullmatch(context):
        return f"the current context {context} is not for tests, which are called kind-... or agentmemory"
    return None


if __name__ == "__main__":
    if reason := why_none():
        sys.exit(reason)
