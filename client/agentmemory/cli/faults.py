"""From an error to a line on stderr and a status for the shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import typer

from agentmemory.cli.importer import ImportFailed
from agentmemory.errors import AgentMemoryError, Unreachable

FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130
T = TypeVar("T")


class CommandFailed(Exception):
    """The command cannot do what it was asked; the message says what to do."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; its failures end the process with one clear message and no traceback."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        fail("Interrupted.", INTERRUPTED)
    except Unreachable as error:
        fail(error, UNREACHABLE)
    except (AgentMemoryError, CommandFailed, ImportFailed) as error:
        fail(error, FAILED)
    except OSError as error:
        fail(error, FAILED)


def fail(why: object, status: int) -> NoReturn:
    """End with `status`, saying why."""
    sys.stderr.write(f"agentmemory: {why}\n")
    raise typer.Exit(status)
