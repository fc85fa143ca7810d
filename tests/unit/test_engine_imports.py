"""What only looks at a memory does not load what works on it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LIGHT = (
    "status", "direct_status", "identity", "schema", "redis", "postgres", "journal", "settings", "administration",
    "preflight",
)  # fmt: skip
_SHOW = "import sys, agentmemory_engine.{0}; print(*sys.modules)"
_WORKERS = {f"agentmemory_engine.{name}" for name in ("memory", "consolidation", "embedding")}
_HEAVY = {"numpy", "onnxruntime", "tokenizers", "aiohttp", "snowballstemmer", "regex", "jsonpath", "pgvector"}


@pytest.mark.parametrize("name", _LIGHT)
def test_what_an_operator_imports_loads_neither_workers_nor_models(name: str) -> None:
    code = _SHOW.format(name)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(shown.split())
    assert f"agentmemory_engine.{name}" in loaded
    assert not loaded & (_WORKERS | _HEAVY)
