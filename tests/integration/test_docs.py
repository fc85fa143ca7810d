"""The commands in the documentation do what it says: each is run against a real sidecar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentmemory.local import LocalStores
from agentmemory.runner import LocalMemory
from support.fleet import free_port

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ["docs/agent-developer.md", "docs/advise.md"]
WRITTEN = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the blocks that are not marked `skip`."""
    return [(match[1], match[2]) for match in BLOCK.finditer((ROOT / page).read_text())]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    directory = tmp_path_factory.mktemp("docs")
    async with LocalMemory(directory, port=free_port(), ops_port=free_port()) as memory:
        yield memory.url
    await LocalStores.erase(directory)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs(page: str, url: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"AGENTMEMORY_URL": url, "PATH": path, "HOME": str(tmp_path)}
    for language, text in blocks(page):
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", WRITTEN)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", WRITTEN)
def test_every_make_target_that_is_named_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile, target
