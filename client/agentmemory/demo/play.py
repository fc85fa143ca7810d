"""The demonstration itself: five days, four nights, one crash, and an account of it all."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress

from agentmemory.client import AgentMemory, Until
from agentmemory.demo.latency import ROUNDS, measure
from agentmemory.demo.ledger import Audit, Ledger, audit
from agentmemory.demo.report import Answered, show_answers, show_audit, show_latencies
from agentmemory.demo.story import AGENT, CONFIG, StoryTurn, read_days, read_questions, readings
from agentmemory.errors import Expired
from agentmemory.models import Hydration, Receipt
from agentmemory.retries import Retries
from agentmemory.runner import LocalMemory

CRASH_DAY = "day-4"
CRASH_AFTER = 60  # acknowledged turns of that day
READERS = 4
BETWEEN_LOOKS = 0.1  # seconds
PATIENCE = Retries(budget=120.0, longest=0.5)
WAKE_UP = "What are we working on, and what was decided?"


async def play(directory: Path | None, port: int, ops_port: int, console: Console) -> None:
    """Play it all, and end with status 1 when a number is not as it must be.

    Raises:
        LocalStoreError: the stores or the sidecar do not start.
        AgentMemoryError: the sidecar does not answer as it should.
    """
    async with _place(directory, console) as place:
        memory = LocalMemory(place, config=CONFIG, port=port, ops_port=ops_port)
        with console.status("Starting Valkey, PostgreSQL and the sidecar …"):
            await memory.start()
        try:
            console.print(f"[bold]AgentMemory[/bold] on {memory.url}, data in {place}")
            async with AgentMemory(memory.url, client_name="demo", retries=PATIENCE) as client:
                outcome = await Play(memory, client, console).run()
        finally:
            with console.status("Stopping …"):
                await memory.stop()
        if not outcome.passed:
            raise typer.Exit(1)


class Play:
    """One performance."""

    def __init__(self, memory: LocalMemory, client: AgentMemory, console: Console) -> None:
        self._memory = memory
        self._client = client
        self._agent = client.agent(AGENT)
        self._console = console
        self._ledger = Ledger()
        self._receipts: list[Receipt] = []
        self._in_flight = 0

    async def run(self) -> Audit:
        """All days, then the account."""
        days = read_days()
        *_, last = days
        for day, turns in days.items():
            self._console.rule(f"[bold]{day}[/bold]  {turns[0].event.at:%A, %d %B %Y}", align="left")
            self._show_waking(await self._agent.hydrate(WAKE_UP, restore=True))
            await (self._live_through_crash(day, turns) if day == CRASH_DAY else self._live(turns))
            await self._settle()
            if day != last:
                await self._sleep_until_expired()
        self._console.rule("[bold]the account[/bold]", align="left")
        return await self._account()

    async def _live(self, turns: Sequence[StoryTurn]) -> None:
        for turn in turns:
            await self._record(turn)
        self._say(f"{len(turns)} turns acknowledged")

    async def _record(self, turn: StoryTurn) -> None:
        self._in_flight += 1
        try:
            receipt = await self._agent.record([turn.event], session=turn.session, merge=turn.merge)
        finally:
            self._in_flight -= 1
        self._ledger.enter(receipt, turn.session)
        self._receipts.append(receipt)

    async def _live_through_crash(self, day: str, turns: Sequence[StoryTurn]) -> None:
        before = len(self._receipts)
        enough = asyncio.Event()

        async def write(part: Sequence[StoryTurn]) -> None:
            for turn in part:
                await self._record(turn)
                if len(self._receipts) - before >= CRASH_AFTER:
                    enough.set()

        measured = readings(day)
        async with asyncio.TaskGroup() as writers:
            for part in (turns, *(measured[first::READERS] for first in range(READERS))):
                writers.create_task(write(part))
            await enough.wait()
            say = f"{len(self._receipts) - before} turns acknowledged, {self._in_flight} in flight"
            await self._crash(say)
        told = f"{self._ledger.repeated} of them by a retry that found its turn taken before the crash"
        self._say(f"{len(self._receipts) - before} turns acknowledged, {told}")

    async def _crash(self, moment: str) -> None:
        await self._memory.kill_sidecar()
        self._say(f"[bold red]SIGKILL[/bold red] to the sidecar: {moment}; the writers go on trying")
        started = time.monotonic()
        with self._console.status("The sidecar starts again …"):
            await self._memory.start_sidecar()
        self._say(f"the sidecar is back after {time.monotonic() - started:.1f} s")

    async def _settle(self) -> None:
        with self._console.status("Waiting for what was acknowledged …"):
            durable, searchable = await self._wait("durable"), await self._wait("searchable")
        self._say(f"all durable {durable:.2f} s later, searchable {durable + searchable:.2f} s later")

    async def _wait(self, until: Until) -> float:
        started = time.monotonic()
        await self._client.wait(self._receipts, until=until, within=120)
        return time.monotonic() - started

    async def _sleep_until_expired(self) -> None:
        started = time.monotonic()
        with self._console.status("Night: working memory is about to expire …"):
            version = await self._expired_version()
        self._say(f"night: working memory expired after {time.monotonic() - started:.1f} s; its snapshot is {version}")

    async def _expired_version(self) -> str | None:
        while True:
            try:
                await self._agent.working_memory()
            except Expired as expired:
                return expired.version
            await asyncio.sleep(BETWEEN_LOOKS)

    def _show_waking(self, context: Hydration) -> None:
        if context.cold_start == "new-agent":
            self._say("woke up as a [bold]new agent[/bold]: nothing to remember")
            return
        document = context.working_memory
        step = "lost" if document is None else f"restored, at step {document.get('step')!r}"
        self._say(f"woke up, cold start [bold]{context.cold_start or 'none'}[/bold]: document {step}")
        self._say(f"{len(context.recalled)} events recalled, {context.tokens} tokens of context")

    def _say(self, line: str) -> None:
        self._console.print(f"  {line}")

    async def _account(self) -> Audit:
        with self._console.status("Counting …"):
            timeline = [event.id async for event in self._agent.timeline()]
            positions = dict.fromkeys(entry.position for entry in self._ledger.entries)
            states = {position: await self._client.state(AGENT, position) for position in positions}
            answers = [Answered(one, (await self._agent.recall(one.question, k=10)).events) for one in read_questions()]
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task("Measuring", total=ROUNDS)
            measured = await measure(self._client, self._memory.stores, self._agent, lambda: progress.advance(task))
        outcome = audit(self._ledger, timeline, states)
        show_answers(self._console, answers)
        show_latencies(self._console, measured)
        show_audit(self._console, outcome)
        return outcome


@asynccontextmanager
async def _place(directory: Path | None, console: Console) -> AsyncIterator[Path]:
    place = directory or Path(tempfile.mkdtemp(prefix="agentmemory-demo-"))
    await LocalMemory.erase(place)
    keep = directory is not None
    try:
        yield place
    except Exception:
        keep = keep or any(place.iterdir())
        if keep:
            console.print(f"Data and logs are kept in {place}.", markup=False)
        raise
    finally:
        if not keep:
            await LocalMemory.erase(place)
            shutil.rmtree(place, ignore_errors=True)
