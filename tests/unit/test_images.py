"""What the images are made of: dependencies that are pinned by hash, from wherever the builder's index is."""

from __future__ import annotations

import re
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
