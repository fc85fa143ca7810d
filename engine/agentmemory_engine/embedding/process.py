"""One life of the worker process, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

import msgspec

from agentmemory_engine.embedding.frames import LENGTH, Reply, decode_reply, encode

_MODULE = "agentmemory_engine.embedding.worker"

_FAREWELL = 5.0
"""Seconds that a process which closed its end may take to be gone."""

_ENVIRONMENT = {
    # Threads that would do nothing but hold memory.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
    # Nobody's memory is any of its maker's business.
    "ORT_DISABLE_TELEMETRY": "1",
}


class WorkerLost(Exception):
    """The process ended, did not answer in time, or answered nonsense; it is gone now."""


class WorkerProcess:
    """A process that is ready, and takes one request at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def launch(cls, *, patience: float, model: Sequence[str] = ()) -> WorkerProcess:
        """Start one and wait until its model is loaded, `patience` seconds at most. Raises WorkerLost.

        `model` are the directory and the dimensions of another model than its own.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                # Without -P, a file in the working directory could stand in for a module.
                sys.executable, "-P", "-m", _MODULE, str(os.getpid()), *model,
                stdin=PIPE, stdout=PIPE, env={**os.environ, **_ENVIRONMENT},
            )  # fmt: skip
        except OSError as error:
            raise WorkerLost(f"the embedding process cannot be started: {error}") from error
        worker = cls(process)
        await worker.ask([], patience=patience)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, texts: Sequence[str], *, patience: float) -> Reply:
        """A vector for each text. Raises WorkerLost, and whatever it raises, the process is gone."""
        try:
            async with asyncio.timeout(patience):
                vectors = await self._exchange(encode(list(texts)))
            if len(vectors) != len(texts):
                raise WorkerLost(f"the embedding process answered {len(texts)} texts with {len(vectors)} vectors")
        except TimeoutError:
            await self.kill()
            raise WorkerLost(f"the embedding process did not answer within {patience:g} s") from None
        except (OSError, EOFError, RuntimeError, msgspec.DecodeError) as error:
            await self._see_off()
            raise WorkerLost(f"the embedding process ended with status {self._process.returncode}") from error
        except BaseException:
            await self.kill()
            raise
        return vectors

    async def _exchange(self, request: bytes) -> Reply:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(request)
        await self._process.stdin.drain()
        head = await self._process.stdout.readexactly(LENGTH.size)
        return decode_reply(await self._process.stdout.readexactly(LENGTH.unpack(head)[0]))

    async def _see_off(self) -> None:
        """Reap a process that seems to end by itself, so that its own status is seen; kill it when it does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process, whatever it does, and reap it. It holds nothing that could be lost."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
