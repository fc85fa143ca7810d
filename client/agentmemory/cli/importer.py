"""Sends a conversation from a file to one agent: checked whole first, in order, and without what is there already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from agentmemory.agent import Agent
from agentmemory.errors import DegradedAnswer, ProblemError
from agentmemory.importing import BadLine, ImportedTurn, LineReader, fingerprint, turns
from agentmemory.models import Position, Receipt

PAGE = 1000  # events


class ImportFailed(Exception):
    """The file, or a part of it, cannot be imported; the message says which and why."""


@dataclass(frozen=True)
class Survey:
    """What is in the file: how many good lines, and which bad ones."""

    lines: int
    bad: list[BadLine]


@dataclass(frozen=True)
class Known:
    """Fingerprints of lines that memory holds, and where the last of them stands."""

    lines: Set[bytes] = frozenset()
    last: Position | None = None


class Importer:
    """One file on its way to one agent."""

    def __init__(self, file: Path, agent: Agent, *, skip_bad: bool = False) -> None:
        self._file = file
        self._agent = agent
        self._skip_bad = skip_bad

    def survey(self) -> Survey:
        """Read the whole file once; nothing is sent.

        Raises:
            ImportFailed: a line is bad, and bad lines shall not be skipped; or there is no good one.
        """
        reader = LineReader(skip_bad=self._skip_bad)
        with self._file.open("rb") as stream:
            try:
                count = sum(1 for _ in reader.read(stream))
            except BadLine as bad:
                raise ImportFailed(
                    f"{self._file}, {bad}. Nothing was sent: mend it, or leave such lines out with --skip-bad."
                ) from None
        if count == 0:
            raise ImportFailed(f"{self._file} has no line that can be imported.")
        return Survey(count, reader.bad)

    async def find_known(self) -> Known:
        """What memory holds by now, of this file or another.

        Raises:
            ImportFailed: a store does not answer, so that it cannot be known.
        """
        lines, last = set(), None
        try:
            async for event in self._agent.timeline(page_size=PAGE):
                if event.metadata and "import_id" in event.metadata:
                    lines.add(fingerprint(event.session, event))
                    last = Position(self._agent.name, event.position)
        except DegradedAnswer as error:
            raise ImportFailed(
                f"Which lines memory holds cannot be known ({', '.join(error.degraded)}): try again later. All of a "
                "file that is as it was can be sent again with --no-resume, and nothing is stored twice."
            ) from None
        return Known(lines, last)

    async def send(self, known: Set[bytes]) -> AsyncIterator[tuple[ImportedTurn, Receipt]]:
        """Each turn of the lines that are not known, once it is acknowledged.

        Raises:
            ImportFailed: a turn is refused. What came before it is in memory.
            Unreachable, Unavailable: the sidecar did not come back in time.
        """
        for turn in self._turns(known):
            yield turn, await self._record(turn)

    def _turns(self, known: Set[bytes]) -> Iterator[ImportedTurn]:
        with self._file.open("rb") as stream:
            lines = LineReader(skip_bad=self._skip_bad).read(stream)
            new = (line for line in lines if fingerprint(line.session, line.event) not in known)
            yield from turns(new, agent=self._agent.name)

    async def _record(self, turn: ImportedTurn) -> Receipt:
        try:
            return await self._agent.record(turn.events, session=turn.session, idempotency_key=turn.key)
        except ProblemError as error:
            if error.status == 503:
                raise
            raise ImportFailed(f"{self._file}, lines up to {turn.last}: {error}") from error
