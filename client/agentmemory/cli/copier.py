"""Takes an export into an agent: checked whole first, in order, and without what is there already."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from agentmemory import exports
from agentmemory.agent import Agent
from agentmemory.cli.importer import ImportFailed
from agentmemory.errors import ProblemError, VersionConflict
from agentmemory.exports import BadExport, Contents, CopiedTurn
from agentmemory.models import Position, Receipt


class Copied(Struct, kw_only=True):
    """What an import of an export did. `document`: `written`, `kept` where there was one, or `none` in the file.

    `dead_letters` were offered to Postgres again; `left_out` are those of them that no sidecar takes.
    """

    file: str
    agent: str
    source: str
    events: int = 0
    events_already_there: int = 0
    sessions: int = 0
    knowledge: int = 0
    dead_letters: int = 0
    left_out: int = 0
    document: str = "none"


class Copier:
    """One export on its way to one agent."""

    def __init__(self, file: Path, agent: Agent) -> None:
        self._file = file
        self._agent = agent
        self._ids: dict[str, str] = {}
        self.last: Position | None = None
        """Where the last turn stands."""

    def survey(self) -> Contents:
        """Read the whole file once; nothing is sent.

        Raises:
            ImportFailed: it is no whole export.
        """
        with self._file.open("rb") as lines:
            try:
                return exports.survey(lines)
            except BadExport as bad:
                raise ImportFailed(f"{self._file}, {bad}. Nothing was sent.") from None

    async def send(self, found: Contents) -> Copied:
        """Send all of it.

        Raises:
            ImportFailed: a part is refused. What came before it is in memory.
            Unreachable, Unavailable: the sidecar did not come back in time.
        """
        result = Copied(file=str(self._file), agent=self._agent.name, source=found.header.agent)
        with self._file.open("rb") as lines:
            for turn in exports.turns(lines, self._agent.name):
                await self._send_turn(turn, found, result)
        await self._send_document(result)
        with self._file.open("rb") as lines:
            for block in exports.rows(lines, self._ids):
                added = await self._agent.import_rows(block)
                result.sessions += added.sessions
                result.knowledge += added.knowledge
        return result

    async def _send_turn(self, turn: CopiedTurn, found: Contents, result: Copied) -> None:
        try:
            receipt = await self._agent.record_json(turn.body, idempotency_key=turn.key)
        except ProblemError as error:
            if error.status == 503:
                raise
            if not turn.dead:
                raise ImportFailed(f"{self._file}, event {turn.ids[0]}: {error}") from error
            result.left_out += 1
            return
        self._note(turn, receipt, found)
        if turn.dead:
            result.dead_letters += not receipt.repeated
        elif receipt.repeated:
            result.events_already_there += len(turn.ids)
        else:
            result.events += len(turn.ids)

    def _note(self, turn: CopiedTurn, receipt: Receipt, found: Contents) -> None:
        self.last = receipt.place
        for before, after in zip(turn.ids, receipt.events, strict=False):
            if before in found.sources:
                self._ids[before] = after.id

    async def _send_document(self, result: Copied) -> None:
        with self._file.open("rb") as lines:
            body = exports.document(lines)
        if body is None:
            return
        key = exports.document_key(body, self._agent.name)
        try:
            receipt = await self._agent.put_new_json(body, idempotency_key=key)
        except VersionConflict:
            result.document = "kept"
        else:
            result.document = "kept" if receipt.repeated else "written"
            self.last = receipt.place
