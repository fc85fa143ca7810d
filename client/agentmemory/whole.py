"""All of an agent's memory at once: exported, imported, erased."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec

from agentmemory.calls import Calls
from agentmemory.errors import CutOff
from agentmemory.models import Erasure, ImportedRows, Receipt
from agentmemory.transport import Request, Transport

LONGEST_WAIT = 60.0  # seconds that the sidecar waits in one request
NDJSON = "application/x-ndjson"
_END = b'{"kind":"end"'


class WholeAgent:
    """What concerns an agent as a whole."""

    def __init__(self, transport: Transport, name: str) -> None:
        self.name = name
        self._transport = transport
        self._base = f"/v1/agents/{quote(name, safe='')}"
        self._calls = Calls(transport, self._base)

    async def erase(self, *, within: float = 60.0, idempotency_key: str | None = None) -> Erasure:
        """Erase all that was accepted before, in every tier; what is written after it is a new life.

        Waits so many seconds at most until it has left the stores; `done` says whether it has. The same key answers
        the first erasure again, whatever was written since.

        Raises:
            WholeAgentNotAllowed: this pod may not.
            PositionLost: a store lost it; ask again.
        """
        key = idempotency_key or uuid.uuid4().hex
        deadline = time.monotonic() + within
        while True:
            left = max(0.0, deadline - time.monotonic())
            wait = min(LONGEST_WAIT, left)
            path = f"{self._base}?timeout_seconds={wait:.3f}"
            request = Request(method="DELETE", path=path, key=key, timeout=wait + 10.0)
            erasure = (await self._transport.send(request)).decode(Erasure)
            if erasure.done or left <= LONGEST_WAIT:
                return erasure

    async def export(self) -> AsyncIterator[bytes]:
        """All that memory holds of the agent, as lines of JSON, each with its end; the last line is of kind `end`.

        Raises:
            WholeAgentNotAllowed: this pod may not.
            CutOff: it ended in the middle; what came is not whole.
        """
        last = b""
        async for line in self._transport.lines(Request(method="GET", path=f"{self._base}/export")):
            last = line
            yield line
        if not last.startswith(_END):
            raise CutOff(f"The export of {self.name} ended in the middle: ask for it again.")

    async def import_rows(self, lines: bytes) -> ImportedRows:
        """Store lines of an export that are no events: sessions and knowledge, all or none; what is there stays.

        Raises:
            WholeAgentNotAllowed: this pod may not.
            InvalidRequest: a line is something else, or Postgres refuses it.
        """
        request = Request(
            method="POST", path=f"{self._base}/import", body=lines, headers={"Content-Type": NDJSON}, timeout=60.0
        )
        return (await self._transport.send(request)).decode(ImportedRows)

    async def record_json(self, turn: bytes, *, idempotency_key: str) -> Receipt:
        """Record a turn that is JSON already, byte for byte."""
        return await self._send_json("POST", "/turns", turn, idempotency_key, {})

    async def put_new_json(self, document: bytes, *, idempotency_key: str) -> Receipt:
        """Write a document that is JSON already, byte for byte, where there is none.

        Raises:
            VersionConflict: there is one.
        """
        return await self._send_json("PUT", "/working-memory", document, idempotency_key, {"If-None-Match": "*"})

    async def _send_json(self, method: str, path: str, body: bytes, key: str, headers: dict[str, str]) -> Receipt:
        request = Request(
            method=method, path=self._base + path, body=body, headers={"Content-Type": "application/json"} | headers,
            key=key,
        )  # fmt: skip
        receipt = (await self._transport.send(request)).decode(Receipt)
        return msgspec.structs.replace(receipt, agent=self.name)
