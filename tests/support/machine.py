"""A whole memory as a user runs it, for tests: stores, sidecar and the command line tool."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio

from agentmemory import AgentMemory, Retries
from agentmemory.runner import LocalMemory

TOOL = Path(sys.prefix) / "bin" / "agentmemory"
CONFIG = """
apiVersion: agentmemory.io/v1alpha1
kind: AgentMemory
metadata: {{name: test}}
spec:
  shards: 4
  workingMemory: {{ttl: {ttl}}}
  consolidation: {{maxDelay: 50ms}}
  embedding: {{provider: "{provider}"}}
"""


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its status."""

    status: int
    out: str
    err: str


def local_memory(directory: Path, *, provider: str, ttl: str = "1h") -> LocalMemory:
    """One that is not started yet, on free ports."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "agentmemory.yaml"
    config.write_text(CONFIG.format(provider=provider, ttl=ttl))
    port, ops_port = free_ports()
    return LocalMemory(directory, config=config, port=port, ops_port=ops_port)


def client_of(memory: LocalMemory) -> AgentMemory:
    """A client that waits for a sidecar that is being started."""
    return AgentMemory(memory.url, client_name="tests", retries=Retries(budget=60.0))


def free_ports() -> tuple[int, int]:
    """Two ports of 127.0.0.1 that nothing listens at."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@asynccontextmanager
async def administrator(memory: LocalMemory) -> AsyncIterator[redis.asyncio.Redis]:
    """The administrator's connection to Valkey."""
    connection = redis.asyncio.Redis.from_url(
        memory.stores.redis_url,
        username=memory.stores.redis_admin_user,
        password=memory.stores.redis_admin_password,
    )
    try:
        yield connection
    finally:
        await connection.aclose()


async def begin(url: str, *arguments: str | Path) -> Process:
    """Start the command line tool."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTMEMORY_")}
    return await asyncio.create_subprocess_exec(
        TOOL,
        *map(str, arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**environment, "AGENTMEMORY_URL": url, "COLUMNS": "200"},
    )


async def end(process: Process) -> Ended:
    """Wait for it."""
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def tool(url: str, *arguments: str | Path) -> Ended:
    """Run the command line tool."""
    return await end(await begin(url, *arguments))
