"""The provider `Local`: a model in a process of its own, so that neither its memory nor its work is the sidecar's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from agentmemory_engine.embedding.assets import DIMENSIONS, MODEL, find_assets
from agentmemory_engine.embedding.directory import ModelDirectory, find_directory, try_directory
from agentmemory_engine.embedding.errors import EmbeddingMisconfigured, EmbeddingUnavailable
from agentmemory_engine.embedding.lanes import Lanes, Unit, fail, pack
from agentmemory_engine.embedding.process import WorkerLost, WorkerProcess
from agentmemory_engine.embedding.restarts import Restarts
from agentmemory_engine.embedding.text import check_characters
from agentmemory_engine.embedding.vector import Vector

logger = logging.getLogger(__name__)


class LocalEmbedder:
    """Hands units of work to the worker process one by one, queries first, and starts it anew when it is lost.

    A unit that the process was lost over fails; what waits behind it goes to the next process. While none can be
    started, calls fail at once.
    """

    enabled = True

    def __init__(
        self, *, unit_patience: float = 30.0, start_patience: float = 60.0, directory: ModelDirectory | None = None,
        dimensions: int = DIMENSIONS,
    ) -> None:  # fmt: skip
        """Seconds that the process may take over one unit of work, and over its start, before it is given up.

        `directory` holds another model than our own, of these dimensions.
        """
        self.dimensions = dimensions
        self.model = MODEL if directory is None else directory.name(dimensions)
        self._arguments = () if directory is None else (str(directory.path), str(dimensions))
        self._unit_patience = unit_patience
        self._start_patience = start_patience
        self._lanes = Lanes()
        self._restarts = Restarts()
        self._worker: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    def configured(cls, dimensions: int, path: str | None = None) -> LocalEmbedder:
        """The model in the directory `path`, or our own.

        Raises EmbeddingMisconfigured for other dimensions than the model's, and where it is not installed, or none.
        """
        if path is not None:
            directory = find_directory(path)
            try_directory(directory, dimensions)
            return cls(directory=directory, dimensions=dimensions)
        if dimensions != DIMENSIONS:
            raise EmbeddingMisconfigured(
                f"`embedding.dimensions` is {dimensions}, and the model of the provider Local has {DIMENSIONS}; "
                f"set it to {DIMENSIONS}."
            )
        find_assets()
        return cls()

    @property
    def pid(self) -> int | None:
        """The worker process; None while there is none."""
        return self._worker.pid if self._worker is not None and self._worker.alive else None

    async def start(self) -> None:
        """Start the process in the background."""
        self._begin()
        nothing = Unit((), asyncio.get_running_loop().create_future())
        # Nobody waits for it; a failure is logged where it happens, and is no news here.
        nothing.vectors.add_done_callback(lambda vectors: vectors.exception())
        self._lanes.put(nothing, query=True)

    async def close(self) -> None:
        """End the process; calls under way raise EmbeddingUnavailable."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._lanes.fail(EmbeddingUnavailable("the embedder is closed"))
        if self._worker is not None:
            await self._worker.kill()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of length 1 a text, in order. Raises EmbeddingUnavailable, Unembeddable."""
        return await self._submit(texts, query=False)

    async def embed_query(self, text: str) -> Vector:
        """As `embed`, ahead of every text that waits there. Raises EmbeddingUnavailable, Unembeddable."""
        (vector,) = await self._submit([text], query=True)
        return vector

    async def _submit(self, texts: Sequence[str], *, query: bool) -> list[Vector]:
        check_characters(texts)
        self._begin()
        loop = asyncio.get_running_loop()
        units = [Unit(group, loop.create_future()) for group in pack(texts)]
        for unit in units:
            self._lanes.put(unit, query=query)
        try:
            groups = await asyncio.gather(*(unit.vectors for unit in units))
        finally:
            # After one failed, nobody waits for the others.
            for unit in units:
                unit.vectors.cancel()
        return [vector for group in groups for vector in group]

    def _begin(self) -> None:
        if self._closed:
            raise EmbeddingUnavailable("the embedder is closed")
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="local-embedder")

    async def _work(self) -> None:
        """Do unit after unit until cancelled."""
        while True:
            unit = await self._lanes.take()
            try:
                await self._do(unit)
            except Exception as error:
                logger.exception("the local embedder failed")
                fail(unit, EmbeddingUnavailable(f"the local embedder failed: {error!r}"))
            except asyncio.CancelledError:
                fail(unit, EmbeddingUnavailable("the embedder is closed"))
                raise

    async def _do(self, unit: Unit) -> None:
        try:
            worker = await self._ready()
        except EmbeddingUnavailable as error:
            fail(unit, error)
            return
        try:
            vectors = await worker.ask(unit.texts, patience=self._unit_patience)
        except WorkerLost as error:
            fail(unit, self._lost(error))
            return
        self._restarts.worked()
        if not unit.vectors.done():
            unit.vectors.set_result(vectors)

    async def _ready(self) -> WorkerProcess:
        """A process that is up, started now when there is none. Raises EmbeddingUnavailable."""
        if self._worker is not None and self._worker.alive:
            return self._worker
        wait = self._restarts.wait(time.monotonic())
        if wait > 0:
            raise EmbeddingUnavailable(f"the embedding process failed repeatedly; its next start is in {wait:.1f} s")
        try:
            self._worker = await WorkerProcess.launch(patience=self._start_patience, model=self._arguments)
        except WorkerLost as error:
            raise self._lost(error) from error
        return self._worker

    def _lost(self, error: WorkerLost) -> EmbeddingUnavailable:
        logger.warning("%s; it is started again when it is needed", error)
        self._restarts.failed(time.monotonic())
        return EmbeddingUnavailable(str(error))
