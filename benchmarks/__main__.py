"""The program: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from agentmemory.local import LocalStoreError
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import command_of_this_run, describe_machine
from benchmarks.report import Report, show, to_json, to_markdown
from benchmarks.screen import Screen
from benchmarks.sizes import FULL, QUICK
from benchmarks.suite import PARTS, Suite

_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_WIDTH = 160


def main() -> None:
    """Run what the command line asks for; exits with 1 when a measurement could not be made."""
    options = _parser().parse_args()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            report = runner.run(_measure(options))
    except (BenchmarkFailed, LocalStoreError, OSError) as error:
        Console(stderr=True).print(f"benchmarks: {error}", style="red", markup=False)
        sys.exit(1)
    show(report, _console())
    _write(options, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: to see that it works, not to believe")
    parser.add_argument("--only", type=_parts, default=PARTS, metavar="PARTS", help=f"of {','.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (1)")
    parser.add_argument("--rounds", type=int, help="of hot reads and turns")
    parser.add_argument("--events", type=int, help="length of the generated conversation")
    parser.add_argument("--agents", type=int, help="size of the fleet")
    parser.add_argument("--conversation", type=_file, metavar="FILE", help="JSON Lines to import instead")
    parser.add_argument("--questions", type=_file, metavar="FILE", help="JSON Lines with question, evidence and kind")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="write the report as Markdown")
    parser.add_argument("--write", action="store_true", help="the same, to docs/benchmarks.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    return parser


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return parts


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path.absolute()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The sidecar's own loop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _measure(options: argparse.Namespace) -> Report:
    changes = {name: getattr(options, name) for name in ("rounds", "events", "agents")}
    sizes = replace(QUICK if options.quick else FULL, **{name: n for name, n in changes.items() if n is not None})
    facts = describe_machine()
    with Screen(Console(stderr=True)) as screen:
        suite = Suite(sizes, options.seed, options.only, screen, options.conversation, options.questions)
        sections = await suite.run()
    command = {"command": f"`{command_of_this_run()}`", "seed": f"{options.seed}"}
    return Report(facts | suite.versions | command, sections)


def _console() -> Console:
    """As wide as the terminal; a file or pipe gets lines that hold a row."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def _write(options: argparse.Namespace, report: Report) -> None:
    files = {options.output: to_markdown, _PAGE if options.write else None: to_markdown, options.json: to_json}
    for path, render in files.items():
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(report).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
