"""The cluster tests: skipped, each by its name, where no cluster for tests is at hand."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Generator, Iterator

import pytest

from support import cluster
from support.at_hand import why_none
from support.diagnosis import diagnose
from support.kubectl import kubectl
from support.signals import Signals, sender

_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_cluster = [item for item in items if item.get_closest_marker("cluster")]
    if on_cluster and (reason := why_none()):
        for item in on_cluster:
            item.add_marker(pytest.mark.skip(reason=f"no test cluster: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The chart of this checkout, installed once whatever number of processes the tests run on.

    AGENTMEMORY_TEST_CHART=installed takes the one that is there, which spares a restart while one writes a test.
    """
    if os.environ.get("AGENTMEMORY_TEST_CHART") == "installed":
        return
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "chart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / "chart.installed"
        if not done.exists():
            cluster.install_chart()
            done.touch()


@pytest.fixture
def namespace(chart: None, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, under the restricted profile. What was in it is told when the test fails."""
    name = f"test-{os.urandom(4).hex()}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    if request.node.stash.get(_failed, False):
        _keep_diagnosis(request.node.name, diagnose(name))
    kubectl("delete", "namespace", name, "--wait=false")


def _keep_diagnosis(test: str, text: str) -> None:
    directory = cluster.ROOT / ".pytest_cache" / "cluster"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{test.replace('/', '_')[:80]}.txt"
    path.write_text(text)
    sys.stderr.write(f"{text[-20_000:]}\n(all of it: {path})\n")


@pytest.fixture
def memory(namespace: str) -> str:
    """The name of a memory with managed stores that is ready."""
    cluster.apply(cluster.memory_manifest(namespace))
    cluster.wait_ready(namespace)
    return "research"


@pytest.fixture
def signals() -> Iterator[Signals]:
    """What kills or freezes the processes of a container."""
    with sender() as found:
        yield found
