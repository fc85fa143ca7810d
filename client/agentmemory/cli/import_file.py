"""The command `import`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from agentmemory import exports
from agentmemory.cli import show
from agentmemory.cli.copier import Copied, Copier
from agentmemory.cli.faults import run
from agentmemory.cli.importer import Importer, Known, Survey
from agentmemory.cli.options import CLIENT_NAME, AgentName, AsJson, Url, connect
from agentmemory.client import AgentMemory, Until
from agentmemory.models import Position, Receipt
from agentmemory.retries import Retries

SHOWN_BAD = 5
BETWEEN_LOOKS = 0.5  # seconds
PATIENCE = Retries(budget=120.0)


class Imported(Struct, kw_only=True):
    """What an import did. Times are in seconds from its first turn; None for what it did not wait for."""

    file: str
    agent: str
    lines: int
    skipped: int
    already_there: int = 0
    dead_letters: int | None = None
    seconds_sent: float = 0.0
    seconds_durable: float | None = None
    seconds_searchable: float | None = None


class Rate(ProgressColumn):
    """Lines a second."""

    def render(self, task: Task) -> Text:
        """The task's speed, once it has one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class ImportRun:
    """One run of the command: what it shows, what it notes, and what it waits for."""

    def __init__(
        self, importer: Importer, memory: AgentMemory, found: Survey, result: Imported, progress: Progress
    ) -> None:
        self._importer = importer
        self._memory = memory
        self._found = found
        self._result = result
        self._progress = progress
        self._started = time.monotonic()

    async def send(self, *, resume: bool) -> Receipt | Position:
        """Send all that is not there; where the last line stands."""
        task = self._progress.add_task("sent", total=self._found.lines)
        known = await self._importer.find_known() if resume else Known()
        self._started = time.monotonic()
        last: Receipt | Position | None = known.last
        sent = 0
        try:
            async for turn, receipt in self._importer.send(known.lines):
                last = receipt
                sent += len(turn.events)
                self._result.already_there += len(turn.events) * receipt.repeated
                self._progress.advance(task, len(turn.events))
        except BaseException:
            show.errors().print(f"Cut off after {sent:,} lines. Run it again, and it goes on from there.")
            raise
        self._result.already_there += self._found.lines - sent
        self._progress.update(task, completed=self._found.lines)
        self._result.seconds_sent = self._elapsed()
        assert last is not None  # the file has a line: it was sent just now, or is known
        return last

    async def wait(self, last: Receipt | Position) -> None:
        """Wait until all is durable, and then searchable."""
        await self._watch(last, "durable")
        self._result.seconds_durable = self._elapsed()
        await self._watch(last, "searchable")
        self._result.seconds_searchable = self._elapsed()

    async def _watch(self, last: Receipt | Position, until: Until) -> None:
        task = self._progress.add_task(until, total=self._found.lines)
        reached = asyncio.create_task(self._memory.wait(last, until=until, within=None))
        try:
            while not (await asyncio.wait({reached}, timeout=BETWEEN_LOOKS))[0]:
                status = await self._memory.status()
                left = status.pending if until == "durable" else status.unembedded
                if left is not None:
                    self._progress.update(task, completed=max(0, self._found.lines - left))
            await reached
            self._progress.update(task, completed=self._found.lines)
        finally:
            reached.cancel()

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._started, 3)


def import_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="JSON Lines.")],
    agent: AgentName,
    resume: Annotated[
        bool, typer.Option(help="Leave out the lines that memory holds already, after asking it for all of them.")
    ] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out, and count them.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until all is durable and searchable.")] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Load a conversation, or what `agentmemory export` wrote, into an agent's memory.

    Of a conversation, each line is a JSON object with `id`, `at` (a date with its time zone), `content` and, if there
    are, `session` and `speaker`. The file is checked whole before anything is sent. A run that was cut off goes on when
    it is started again; a file that has grown since is imported from where it ended.

    An export keeps its order, times, sessions and knowledge; ids and positions are new, and a document that is there is
    kept. Imported again, it adds nothing.

    Examples:

      agentmemory import talk.jsonl --agent research-1

      agentmemory import research-1.jsonl --agent research-2
    """
    with file.open("rb") as stream:
        is_export = exports.is_export(stream.readline())
    if is_export:
        run(_copy(file, agent, wait, url, as_json))
    else:
        run(_import(file, agent, resume, skip_bad, wait, url, as_json))


async def _copy(file: Path, agent: str, wait: bool, url: str | None, as_json: bool) -> None:
    async with AgentMemory(url, client_name=CLIENT_NAME, retries=PATIENCE) as memory:
        copier = Copier(file, memory.agent(agent))
        result = await copier.send(copier.survey())
        if wait and copier.last is not None:
            await memory.wait(copier.last, until="searchable", within=None)
    show.machine(result) if as_json else _tell(Console(), result)


def _tell(console: Console, result: Copied) -> None:
    table = Table.grid(padding=(0, 3))
    rows = {
        "events": f"{result.events:,}",
        "in memory before": f"{result.events_already_there:,}",
        "sessions added or completed": f"{result.sessions:,}",
        "knowledge": f"{result.knowledge:,}",
        "dead letters, offered again": f"{result.dead_letters:,}",
        "dead letters left out": f"{result.left_out:,}",
        "document": result.document,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


async def _import(
    file: Path, agent: str, resume: bool, skip_bad: bool, wait: bool, url: str | None, as_json: bool
) -> None:
    async with (
        connect(url) as impatient,
        AgentMemory(url, client_name=CLIENT_NAME, retries=PATIENCE) as memory,
    ):
        importer = Importer(file, memory.agent(agent), skip_bad=skip_bad)
        found = importer.survey()
        for bad in found.bad[:SHOWN_BAD]:
            show.errors().print(f"Left out {bad}.", style="yellow", markup=False)
        result = Imported(file=str(file), agent=agent, lines=found.lines, skipped=len(found.bad))
        before = (await impatient.status()).dead_letters
        with _progress() as progress:
            importing = ImportRun(importer, memory, found, result, progress)
            last = await importing.send(resume=resume)
            if wait:
                await importing.wait(last)
        after = (await memory.status()).dead_letters if wait else None
    result.dead_letters = None if before is None or after is None else max(0, after - before)
    show.machine(result) if as_json else _summarise(Console(), result)


def _summarise(console: Console, result: Imported) -> None:
    table = Table.grid(padding=(0, 3))
    rows = {
        "lines": f"{result.lines:,}",
        "left out as bad": f"{result.skipped:,}",
        "in memory before": f"{result.already_there:,}",
        "became dead letters": "unknown" if result.dead_letters is None else f"{result.dead_letters:,}",
        "all sent after": f"{result.seconds_sent:.1f} s",
        "all durable after": _seconds(result.seconds_durable),
        "all searchable after": _seconds(result.seconds_searchable),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print(f'\nAsk it:  agentmemory recall "what happened?" --agent {result.agent}', markup=False)


def _seconds(time: float | None) -> str:
    return "did not wait" if time is None else f"{time:.1f} s"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=show.errors(),
    )
