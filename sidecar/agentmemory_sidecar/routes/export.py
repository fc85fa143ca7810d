"""Export of a whole agent as NDJSON, and import of what does not come in by turns."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC

import msgspec
from aiohttp import hdrs, web

from agentmemory_engine.answers import StoredEvent
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.export import Export, Fact, LetterLine, Line, SessionLine
from agentmemory_engine.turns import check_moment, decode
from agentmemory_sidecar.errors import ClientGone
from agentmemory_sidecar.guard import CURRENT_ID, REQUEST_ID
from agentmemory_sidecar.models import event_members
from agentmemory_sidecar.operations import NDJSON, Operation
from agentmemory_sidecar.requests import MEMORY, body_of, no_params, whole_agent_of
from agentmemory_sidecar.responses import answer
from agentmemory_sidecar.routes.dead_letters import event_of
from agentmemory_sidecar.whole import (
    ExportedDocument,
    ExportedEvent,
    ExportedFact,
    ExportedLetter,
    ExportedSession,
    ExportedUnreadable,
    ExportEnd,
    ExportHeader,
    Imported,
    fact_line,
    header_of,
    letter_line,
    session_line,
    unreadable_line,
)

logger = logging.getLogger(__name__)

_PART = 1 << 16
_encoder = msgspec.json.Encoder()
_NewLine = ExportedSession | ExportedFact


async def export(request: web.Request) -> web.StreamResponse:
    """Line after line; cut off, without an end line, when a store fails in the middle."""
    agent = whole_agent_of(request)
    no_params(request)
    memory = request.app[MEMORY]
    begun = await memory.exporter.begin(agent)
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: NDJSON, REQUEST_ID: CURRENT_ID.get()})
    try:
        await response.prepare(request)
        part = bytearray()
        async with aclosing(_lines(begun, memory.exporter.lines(begun))) as lines:
            async for line in lines:
                part += line
                if len(part) >= _PART:
                    await response.write(bytes(part))
                    part.clear()
        await response.write(bytes(part))
        await response.write_eof()
    except Exception as error:
        # The status is sent already: that the answer ends in the middle is all that can still be said.
        if not isinstance(error, ConnectionError):
            logger.error("the export of request %s is cut off", CURRENT_ID.get(), exc_info=error)
        if request.transport is not None:
            request.transport.abort()
        raise ClientGone from error
    return response


async def _lines(begun: Export, rest: AsyncGenerator[Line, None]) -> AsyncGenerator[bytes, None]:
    for head in header_of(begun):
        yield line_of(head)
    end = ExportEnd()
    async for one in rest:
        match one:
            case SessionLine():
                end.sessions += 1
                yield line_of(session_line(one))
            case StoredEvent():
                end.events += 1
                yield line_of(ExportedEvent(**event_members(one) | {"at": one.at.astimezone(UTC)}))
            case Fact():
                end.knowledge += 1
                yield line_of(fact_line(one))
            case LetterLine(kind="document"):
                end.unreadable += 1
                yield line_of(unreadable_line(one))
            case LetterLine():
                end.dead_letters += 1
                yield line_of(letter_line(one, event_of(one.raw)))
    yield line_of(end)


def line_of(value: msgspec.Struct) -> bytes:
    """The struct as one line.

    JSON that was sent over several lines comes on one: a string in it holds no line break.
    """
    return _encoder.encode(value).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


async def take(request: web.Request) -> web.Response:
    """Sessions and knowledge, as an export has them; all lines or none."""
    agent = whole_agent_of(request)
    no_params(request)
    sessions, facts = [], []
    for number, line in enumerate((await body_of(request)).splitlines(), start=1):
        if line.strip():
            given = _given(number, line)
            if isinstance(given, ExportedSession):
                sessions.append(_session(number, given))
            else:
                facts.append(Fact(bytes(given.fact)))
    if len({one.session for one in sessions}) < len(sessions):
        raise InvalidInput("A session stands on two lines; send each once.")
    added = await request.app[MEMORY].import_rows(agent, sessions, facts)
    return answer(Imported(sessions=added.sessions, knowledge=added.knowledge))


def _given(number: int, line: bytes) -> _NewLine:
    try:
        given: _NewLine = decode(line, _NewLine)  # type: ignore[arg-type]
    except InvalidInput as error:
        raise InvalidInput(f"line {number}: {error}") from None
    if isinstance(given, ExportedFact) and not bytes(given.fact).startswith(b"{"):
        raise InvalidInput(f"line {number}: `fact` is not a JSON object.")
    return given


def _session(number: int, line: ExportedSession) -> SessionLine:
    metadata = None if line.metadata is msgspec.UNSET else bytes(line.metadata)
    if metadata is not None and not metadata.startswith(b"{"):
        raise InvalidInput(f"line {number}: `metadata` is not a JSON object.")
    for moment in (line.started_at, line.last_event_at, line.ended_at):
        if moment is not None:
            check_moment(moment)
    return SessionLine(
        session=line.session, started_at=line.started_at, last_event_at=line.last_event_at, ended_at=line.ended_at,
        metadata=metadata,
    )  # fmt: skip


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/agents/{agent}/export",
        handler=export,
        name="exportAgent",
        summary="All that memory holds of the agent, a line of JSON each; the last line says that it is whole",
        tag="Whole agents",
        answers={
            200: (
                ExportHeader, ExportedDocument, ExportedSession, ExportedEvent, ExportedFact, ExportedLetter,
                ExportedUnreadable, ExportEnd,
            ),
        },
        media=NDJSON,
        problems=(422, 503),
    ),
    Operation(
        method="POST",
        path="/v1/agents/{agent}/import",
        handler=take,
        name="importRows",
        summary="Sessions and knowledge of an export, all lines or none; what is there stays (events come as turns)",
        tag="Whole agents",
        body={NDJSON: _NewLine},
        bodiless=True,
        answers={200: (Imported,)},
        problems=(413, 422, 503),
    ),
)  # fmt: skip
