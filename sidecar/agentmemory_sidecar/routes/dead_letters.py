"""Dead letters: events that Postgres refuses, and documents that cannot be read; listed, read, replayed, discarded."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from agentmemory_engine.answers import DeadLetter
from agentmemory_engine.errors import InvalidAgentId, InvalidInput, NoDeadLetter
from agentmemory_engine.keys import check_agent
from agentmemory_sidecar.models import Deleted, Letter, LetterPage, Replayed
from agentmemory_sidecar.operations import BYTES, Bytes, Operation
from agentmemory_sidecar.requests import AGENTS, MEMORY, agent_of, no_params, params_of
from agentmemory_sidecar.responses import answer


class Place(NamedTuple):
    """Where a page ended."""

    dead_at: datetime
    agent: str
    id: UUID


class ListParams(Struct, forbid_unknown_fields=True):
    """A page of them."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


async def list_letters(request: web.Request) -> web.Response:
    """Oldest first; those of agents that this pod may not name are passed over."""
    params = params_of(request, ListParams)
    after = parse_cursor(params.cursor) if params.cursor is not None else None
    found = await request.app[MEMORY].dead_letters.list(after=after, limit=params.limit + 1)
    page, agents = found[: params.limit], request.app[AGENTS]
    cursor = format_cursor(page[-1]) if len(found) > params.limit else None
    return answer(LetterPage(dead_letters=[_letter(one) for one in page if agents.allows(one.agent)], cursor=cursor))


async def read_raw(request: web.Request) -> web.Response:
    """The bytes as they were found, whatever they are."""
    no_params(request)
    agent, letter = agent_of(request), _id(request)
    found = await request.app[MEMORY].dead_letters.read(agent, letter)
    return web.Response(body=found.raw, content_type=BYTES, headers={"Content-Disposition": "attachment"})


async def replay(request: web.Request) -> web.Response:
    """Into episodic memory; refused again, it stays."""
    no_params(request)
    agent, letter = agent_of(request), _id(request)
    await request.app[MEMORY].dead_letters.replay(agent, letter)
    return answer(Replayed(True))


async def discard(request: web.Request) -> web.Response:
    """Away for good."""
    no_params(request)
    agent, letter = agent_of(request), _id(request)
    await request.app[MEMORY].dead_letters.discard(agent, letter)
    return answer(Deleted(True))


def _id(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise NoDeadLetter("There is no such dead letter: its id is a UUID, as the list gives it.") from None


def format_cursor(letter: DeadLetter) -> str:
    """Where a page ended, as an opaque text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(Place(letter.dead_at, letter.agent, letter.id))).decode()


def parse_cursor(text: str) -> Place:
    """The reverse of format_cursor. Raises InvalidInput."""
    try:
        place = msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=Place)
        check_agent(place.agent)
    except (msgspec.DecodeError, InvalidAgentId, ValueError):
        raise InvalidInput("The cursor is not one that a page gave; use it as it was, or leave it out.") from None
    return place


def _letter(letter: DeadLetter) -> Letter:
    return Letter(
        kind=letter.kind,
        id=letter.id,
        agent=letter.agent,
        position=str(letter.position),
        index=letter.index,
        reason=letter.reason,
        sqlstate=letter.sqlstate,
        event=event_of(letter.raw),
        dead_at=letter.dead_at,
    )


def event_of(raw: bytes) -> Raw:
    """The letter's JSON as it is, or its text as a JSON string."""
    try:
        raw.decode()
        # As Raw: its syntax counts, and not whether its numbers fit into a float.
        return msgspec.json.decode(raw, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Raw(msgspec.json.encode(raw.decode(errors="replace")))


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/dead-letters",
        handler=list_letters,
        name="listDeadLetters",
        summary="Events that Postgres refuses for their own sake, and documents that cannot be read, oldest first",
        tag="Dead letters",
        params=ListParams,
        answers={200: (LetterPage,)},
        problems=(422, 503),
    ),
    Operation(
        method="GET",
        path="/v1/dead-letters/{agent}/{id}/raw",
        handler=read_raw,
        name="readDeadLetter",
        summary="The bytes of one, as they were found",
        tag="Dead letters",
        answers={200: (Bytes,)},
        media=BYTES,
        problems=(404, 422, 503),
    ),
    Operation(
        method="POST",
        path="/v1/dead-letters/{agent}/{id}/replay",
        handler=replay,
        name="replayDeadLetter",
        summary="Offer an event to Postgres again; refused again, it stays",
        tag="Dead letters",
        answers={200: (Replayed,)},
        problems=(404, 422, 503),
    ),
    Operation(
        method="DELETE",
        path="/v1/dead-letters/{agent}/{id}",
        handler=discard,
        name="discardDeadLetter",
        summary="Delete it for good",
        tag="Dead letters",
        answers={200: (Deleted,)},
        problems=(404, 422, 503),
    ),
)
