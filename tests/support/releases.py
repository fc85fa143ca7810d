"""Releases of the chart beside the one that the other tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from support.kubectl import kubectl


@contextmanager
def restricted_namespace() -> Iterator[str]:
    """A namespace that warns of what the restricted profile forbids, and refuses it; without the chart in it."""
    name = f"test-{os.urandom(4).hex()}"
    kubectl("create", "namespace", name)
    levels = (f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn"))
    kubectl("label", "namespace", name, *levels)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
