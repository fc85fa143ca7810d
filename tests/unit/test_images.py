"""What the images are made of: dependencies that are pinned by hash, from wherever the builder's index is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(ROOT.glob("Dockerfile.*"))
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_address_and_hashes_everything(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|^-", text, re.MULTILINE)
    requirements = re.split(r"(?<!\\)\n(?=\S)", text.strip())
    assert [one for one in requirements if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:", one, re.DOTALL)] == []


def test_an_image_holds_the_versions_that_are_tested() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        return set(re.findall(r"^[\w.-]+==\S+", text, re.MULTILINE))

    for name in ("build", "operator", "sidecar", "embedding"):
        assert pins(name) <= pins("dev"), name


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_starts_from_python_alone_and_ends_without_root(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:3.13-slim"}
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["65532:65532"]
    assert set(re.findall(r"COPY --from=(\S+)", text)) <= set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))


def test_both_images_are_there() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.operator", "Dockerfile.sidecar"]


def test_the_operator_uses_no_class_that_its_image_leaves_out() -> None:
    assert "kubernetes" in (ROOT / "Dockerfile.operator").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "operator").rglob("*.py"))
    assert set(re.findall(r"(?:from|import) (kubernetes[\w.]*)", code)) == {
        "kubernetes.aio.client.api_client",
        "kubernetes.aio.client.configuration",
        "kubernetes.aio.config",
        "kubernetes.utils.quantity",
    }
    # Kopf takes what classes of the API there are, and does without.
    look = (
        "import sys, pkgutil, importlib, kopf\n"
        "before = set(sys.modules)\n"
        "import agentmemory_operator as ours\n"
        "for one in pkgutil.walk_packages(ours.__path__, 'agentmemory_operator.'): importlib.import_module(one.name)\n"
        "print(*(name for name in set(sys.modules) - before if name.startswith('kubernetes.')))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "kubernetes.aio.client.api_client" in loaded
    assert [name for name in loaded if re.search(r"\.client\.(api|models)\.", name)] == []
