"""An import end to end, by the program that a user runs: until acknowledged, durable, searchable; and what it costs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import BenchmarkFailed
from benchmarks.figures import Section, at_most
from benchmarks.processes import Footprint, footprint, processor_seconds, watched
from benchmarks.screen import Screen
from benchmarks.stage import Stage

AGENT = "imported"
_LIMIT_UNDER_LOAD = 250e6  # bytes
_EMBEDDING, _SIDECAR, _PROGRAM = "embedding process", "sidecar without it", "import program"


@dataclass(frozen=True)
class Source:
    """A conversation: its file, what to call it, how many utterances it has."""

    path: Path
    label: str
    lines: int


async def measure_import(stage: Stage, source: Source, screen: Screen) -> tuple[Section, Footprint]:
    """The section, and the sidecar's memory at its peak."""
    screen.begin("Import", 1)
    sidecar = stage.memory.sidecar.pid
    before = _processor(stage)
    async with watched(sidecar) as peak:
        result = await _import(stage, source.path)
    processor = {name: seconds - before[name] for name, seconds in _processor(stage).items()}
    screen.step()
    if result["dead_letters"] or result["already_there"] or result["lines"] != source.lines:
        raise BenchmarkFailed(f"the import is not what was asked for: {result}")
    section = Section(f"Import of {source.lines:,} utterances ({source.label})")
    _report_times(section, result)
    _report_processor(section, processor, result["seconds_searchable"])
    return section, peak.seen


def _processor(stage: Stage) -> dict[str, float]:
    """Processor time so far, by part."""
    stores, sidecar = stage.memory.stores, stage.memory.sidecar.pid
    embedding = sum(processor_seconds(child.pid) for child in psutil.Process(sidecar).children())
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        _EMBEDDING: embedding,
        _SIDECAR: processor_seconds(sidecar) - embedding,
        "Postgres": processor_seconds(stores.postgres.pid),
        "Redis": processor_seconds(stores.valkey.pid),
        _PROGRAM: ended.ru_utime + ended.ru_stime,
    }


async def _import(stage: Stage, path: Path) -> dict[str, Any]:
    program = Path(sys.executable).with_name("agentmemory")
    process = await asyncio.create_subprocess_exec(
        program, "import", path, "--agent", AGENT, "--url", stage.memory.url, "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": str(stage.scratch)},
    )  # fmt: skip
    out, errors = await process.communicate()
    if process.returncode != 0:
        raise BenchmarkFailed(f"the import ended with {process.returncode}: {errors.decode()[-500:]}")
    result: dict[str, Any] = json.loads(out)
    return result


def _report_times(section: Section, result: dict[str, Any]) -> None:
    for name in ("sent", "durable", "searchable"):
        seconds = result[f"seconds_{name}"]
        what = "acknowledged" if name == "sent" else name
        section.add(
            f"until all is {what}", seconds, "s", detail=f"{result['lines'] / seconds:,.0f} utterances a second"
        )


def _report_processor(section: Section, processor: dict[str, float], wall: float) -> None:
    total = sum(processor.values())
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in processor.items())
    embedding = processor[_EMBEDDING]
    section.add("processor time of all", total, "s", detail=parts)
    section.add("embedding's share of that", embedding / total, "share")
    section.add("embedding's processor time to the time until searchable", embedding / wall, "share")


def report_memory(idle_without: Footprint, idle_with: Footprint, peak: Footprint, after: Footprint) -> Section:
    """The sidecar's memory, its embedding process included."""
    section = Section("Memory of the sidecar and its embedding process")
    rows = (
        ("idle, embedding provider None", idle_without, at_most(80e6)),
        ("idle, embedding provider Local", idle_with, None),
        ("peak during the import", peak, at_most(_LIMIT_UNDER_LOAD)),
        ("after the import", after, at_most(_LIMIT_UNDER_LOAD)),
    )
    for name, found, target in rows:
        section.add(name, found.fair, "MB", target, detail=f"rss {found.rss / 1e6:.1f} MB")
    if idle_without.pss is not None:
        section.notes.append("Proportional set size: a page that two processes share counts half for each.")
    return section


async def settled_footprint(stage: Stage, seconds: float = 3.0) -> Footprint:
    """The sidecar's memory after it was left alone for a while."""
    await asyncio.sleep(seconds)
    return footprint(stage.memory.sidecar.pid)
