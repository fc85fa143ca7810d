"""From the chart of before to the one of this checkout, while an agent writes."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from support import cluster
from support.cluster import Agent, helm, image_values, verify
from support.kubectl import kubectl_json

pytestmark = [pytest.mark.cluster, pytest.mark.disruptive]

CHART = "helm/agentmemory"


def git(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(("git", "-C", str(cluster.ROOT), *args), capture_output=True, check=False)


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The chart of the last commit that has another one than this checkout."""
    commits = git("log", "--format=%H", "--", CHART).stdout.decode().split()
    other = (one for one in commits if git("diff", "--quiet", one, "--", CHART).returncode == 1)
    commit = next(other, None)
    if commit is None or not (archive := git("archive", commit, CHART).stdout):
        pytest.skip("the history at hand holds no other chart: it is shallow, or there was none")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tmp_path, filter="data")
    return tmp_path / CHART


def revision() -> int:
    """How many times the chart was installed, upgraded or rolled back."""
    secrets = kubectl_json("get", "secrets", "--namespace", cluster.SYSTEM, "--selector", "owner=helm")["items"]
    return max(int(one["metadata"]["labels"]["version"]) for one in secrets)


def test_an_agent_notices_nothing_of_an_upgrade(previous: Path, memory: str, namespace: str) -> None:
    helm(
        "upgrade", cluster.RELEASE, str(previous), "--namespace", cluster.SYSTEM, "--reset-values", *image_values(),
        "--wait", "--timeout", "5m",
    )  # fmt: skip
    before = revision()
    writer = Agent(namespace, memory=memory)
    try:
        writer.start()
        cluster.install_chart()
        assert revision() == before + 1
        cluster.settled(namespace, memory)
        writer.wait_for_more()
        writer.stop()
    finally:
        if revision() == before:
            cluster.install_chart()
    assert writer.failures == []
    assert verify(writer) >= len(writer.acknowledged)
