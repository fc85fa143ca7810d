"""Sessions: started, listed, read, ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from agentmemory_engine.answers import SessionRecord
from agentmemory_engine.sessions import NewSession, SessionChange, SessionQuery
from agentmemory_engine.turns import decode
from agentmemory_sidecar.operations import JSON, Operation
from agentmemory_sidecar.requests import (
    IDEMPOTENCY_KEY,
    MEMORY,
    agent_of,
    body_of,
    key_of,
    no_params,
    object_of,
    params_of,
)
from agentmemory_sidecar.responses import answer

PATH = "/v1/agents/{agent}/sessions"


class Session(Struct, kw_only=True):
    """A session. `last_event_at` is null before its first event, `ended_at` while it is open."""

    id: str
    started_at: datetime
    last_event_at: datetime | None
    ended_at: datetime | None
    metadata: Raw | UnsetType = UNSET


class SessionList(Struct, kw_only=True):
    """Newest first. `cursor` continues it; null at the end. `degraded` names what could not be asked."""

    sessions: list[Session]
    cursor: str | None
    degraded: list[str]


class SessionParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which sessions."""

    ended: Annotated[bool | None, Meta(description="only those that have ended, or that have not")] = None
    metadata: Annotated[str | None, Meta(description="a JSON object that the session's metadata contains")] = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


async def start(request: web.Request) -> web.Response:
    """201 for a session that is new, 200 for one that was there."""
    agent = agent_of(request)
    no_params(request)
    new = decode(await body_of(request) or b"{}", NewSession)
    session, is_new = await request.app[MEMORY].sessions.start(agent, new, key=key_of(request))
    return answer(_session(session), status=201 if is_new else 200)


async def list_sessions(request: web.Request) -> web.Response:
    """A page of them."""
    agent = agent_of(request)
    params = params_of(request, SessionParams)
    query = SessionQuery(
        ended=params.ended,
        metadata=object_of(params.metadata, "metadata"),
        limit=params.limit,
        cursor=params.cursor,
    )
    page = await request.app[MEMORY].sessions.page(agent, query)
    return answer(
        SessionList(sessions=[_session(one) for one in page.sessions], cursor=page.cursor, degraded=page.degraded)
    )


async def read(request: web.Request) -> web.Response:
    """One of them."""
    agent = agent_of(request)
    no_params(request)
    return answer(_session(await request.app[MEMORY].sessions.read(agent, request.match_info["session"])))


async def change(request: web.Request) -> web.Response:
    """End it, open it again, change its metadata."""
    agent = agent_of(request)
    no_params(request)
    wish = decode(await body_of(request), SessionChange)
    session = await request.app[MEMORY].sessions.change(agent, request.match_info["session"], wish)
    return answer(_session(session))


def _session(session: SessionRecord) -> Session:
    return Session(
        id=session.id,
        started_at=session.started_at,
        last_event_at=session.last_event_at,
        ended_at=session.ended_at,
        metadata=UNSET if session.metadata is None else Raw(session.metadata),
    )


def _operation(method: str, path: str, handler: Any, name: str, summary: str, **more: Any) -> Operation:
    return Operation(method=method, path=path, handler=handler, name=name, summary=summary, tag="Sessions", **more)


OPERATIONS = (
    _operation(
        "POST", PATH, start, "startSession", "Start a session; starting it again merges its metadata",
        body={JSON: NewSession}, bodiless=True, headers=(IDEMPOTENCY_KEY,), answers={201: (Session,), 200: (Session,)},
        problems=(413, 422, 503),
    ),
    _operation(
        "GET", PATH, list_sessions, "listSessions", "Sessions, newest first, also those that only turns have named",
        params=SessionParams, answers={200: (SessionList,)}, problems=(422, 503),
    ),
    _operation(
        "GET", PATH + "/{session}", read, "readSession", "One session",
        answers={200: (Session,)}, problems=(404, 422, 503),
    ),
    _operation(
        "PATCH", PATH + "/{session}", change, "changeSession", "End a session, open it again, change its metadata",
        body={JSON: SessionChange}, answers={200: (Session,)}, problems=(404, 413, 422, 503),
    ),
)  # fmt: skip
