"""Every route and field against a real sidecar, with requests made from its own description by schemathesis.

AGENTMEMORY_EXAMPLES makes it longer, AGENTMEMORY_SEED another run, AGENTMEMORY_MODE another mode; see `make fuzz`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agentmemory_engine.embedding import Vector
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from support.sidecars import LettersEmbedder, Running

SEED = os.environ.get("AGENTMEMORY_SEED", "1")
EXAMPLES = os.environ.get("AGENTMEMORY_EXAMPLES", "10")
MODE = os.environ.get("AGENTMEMORY_MODE", "Hybrid")
SUPPORT = Path(__file__).parents[1]
CHECKS = (
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "refusals_are_problems",
    "lines_conform", "EveryOperationSucceeds",
)  # fmt: skip


class AnyTextEmbedder(LettersEmbedder):
    """Has a vector for a text without letters as well."""

    async def embed_query(self, text: str) -> Vector:
        return await super().embed_query(text + "a")


@dataclass
class Kept:
    """What an agent's memory has to hold in the end."""

    events: set[str] = field(default_factory=set)
    version: str | None = None


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, mode=MODE)  # type: ignore[arg-type]


@pytest.mark.timeout(0 if "AGENTMEMORY_EXAMPLES" in os.environ else 300)
async def test_every_route_answers_as_it_is_described(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Running(replace(config, allow_whole=True), embedder=AnyTextEmbedder()) as sidecar:
        await sidecar.wait_until_ready()
        await run_schemathesis(sidecar.url, tmp_path)
        for agent, kept in read_ledger(tmp_path / "ledger").items():
            await assert_kept(sidecar, agent, kept)
    unforeseen = [record for record in caplog.records if record.levelname == "ERROR"]
    assert not unforeseen, [record.getMessage() for record in unforeseen]


async def run_schemathesis(url: str, directory: Path) -> None:
    """In a process of its own, so that this one can serve."""
    arguments = [
        "run", f"{url}/openapi.json", "--header", "AgentMemory-Client: fuzz", "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1",
        "--continue-on-failure", "--request-timeout", "30", "--suppress-health-check", "all",
        "--generation-database", "none", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "support.fuzz_hooks",
        "PYTHONPATH": str(SUPPORT),
        "AGENTMEMORY_LEDGER": str(directory / "ledger"),
        "AGENTMEMORY_URL": url,
    }
    output = directory / "schemathesis.txt"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", *arguments, cwd=directory, env=environment, stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
    assert status == 0, output.read_text()


def read_ledger(path: Path) -> dict[str, Kept]:
    """By agent, what was acknowledged and not erased after."""
    kept: dict[str, Kept] = defaultdict(Kept)
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry.get("erased"):
            kept[entry["agent"]] = Kept()
        else:
            kept[entry["agent"]].events.update(entry["events"])
            kept[entry["agent"]].version = entry.get("version", kept[entry["agent"]].version)
    return kept


async def assert_kept(sidecar: Running, agent: str, kept: Kept) -> None:
    """All that was acknowledged is there, once; and nothing is there that was refused."""
    timeline = [event async for event in pages(sidecar, f"/v1/agents/{agent}/events?limit=1000", "events")]
    letters = [letter async for letter in pages(sidecar, "/v1/dead-letters?limit=1000", "dead_letters")]
    found = [one["id"] for one in timeline] + [one["id"] for one in letters if one["agent"] == agent]
    assert sorted(found) == sorted(kept.events), agent
    document = await sidecar.send("GET", f"/v1/agents/{agent}/working-memory")
    assert document.headers.get("ETag") == (None if kept.version is None else f'"{kept.version}"'), agent


async def pages(sidecar: Running, path: str, name: str) -> AsyncIterator[dict[str, Any]]:
    """What stands on all pages of a list."""
    cursor = ""
    while True:
        page = (await sidecar.send("GET", path + cursor)).json()
        for one in page[name]:
            yield one
        if page["cursor"] is None:
            return
        cursor = f"&cursor={page['cursor']}"
