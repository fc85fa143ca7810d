"""Which clusters the cluster tests dare to touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.at_hand import why_none


def kubectl(path: Path, *, context: str) -> str:
    """A kubectl that knows only its current context."""
    program = path / "kubectl"
    program.write_text(f'#!/bin/sh\necho "{context}"\n' if context else "#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("context", ["kind-agentmemory", "kind-x", "agentmemory"])
def test_a_cluster_for_tests_is_at_hand(tmp_path: Path, context: str) -> None:
    assert why_none(kubectl(tmp_path, context=context)) is None


@pytest.mark.parametrize("context", ["production", "kind-", "my-agentmemory", "agentmemory-eu", "a-kind-b"])
def test_any_other_cluster_is_left_alone(tmp_path: Path, context: str) -> None:
    assert f"the current context {context} is not for tests" in str(why_none(kubectl(tmp_path, context=context)))


def test_no_cluster_and_no_kubectl_are_reasons(tmp_path: Path) -> None:
    assert "make cluster" in str(why_none(kubectl(tmp_path, context="")))
    assert why_none(str(tmp_path / "absent")) == "there is no kubectl"
