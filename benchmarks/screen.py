"""What is shown while it runs. Drawn only between measurements: a thread that draws would be measured with them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Screen:
    """The progress of the sections. A context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task: TaskID | None = None

    def begin(self, title: str, steps: int) -> None:
        """A section of so many steps begins."""
        self._task = self._progress.add_task(title, total=steps)
        self._progress.refresh()

    def step(self) -> None:
        """One more step is done."""
        assert self._task is not None
        self._progress.advance(self._task)
        self._progress.refresh()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
