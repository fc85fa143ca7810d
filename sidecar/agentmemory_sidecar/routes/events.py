"""What happened: the recent messages, and the timeline."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_sidecar.models import Moment, RecentMessages, TimelinePage, recorded
from agentmemory_sidecar.operations import Operation
from agentmemory_sidecar.requests import MEMORY, agent_of, params_of
from agentmemory_sidecar.responses import answer


class RecentParams(Struct, forbid_unknown_fields=True):
    """How many messages."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class TimelineParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events; `until` is exclusive, `type` may be repeated."""

    since: Moment | None = None
    until: Moment | None = None
    type: list[str] = []
    session: str | None = None
    role: str | None = None
    order: Literal["asc", "desc"] = "asc"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


async def recent(request: web.Request) -> web.Response:
    """The last messages, oldest first."""
    agent = agent_of(request)
    page = await request.app[MEMORY].recent(agent, params_of(request, RecentParams).limit)
    return answer(RecentMessages(messages=[recorded(event) for event in page.events], degraded=page.degraded))


async def timeline(request: web.Request) -> web.Response:
    """A page of what happened."""
    agent = agent_of(request)
    params = params_of(request, TimelineParams)
    wanted = Filter(
        types=params.type or None, session=params.session, role=params.role, since=params.since, until=params.until
    )
    query = TimelineQuery(filter=wanted, order=params.order, limit=params.limit, cursor=params.cursor)
    page = await request.app[MEMORY].timeline(agent, query)
    events = [recorded(event) for event in page.events]
    return answer(TimelinePage(events=events, cursor=page.cursor, degraded=page.degraded))


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/agents/{agent}/messages",
        handler=recent,
        name="recentMessages",
        summary="The recent messages, oldest first",
        tag="Events",
        params=RecentParams,
        answers={200: (RecentMessages,)},
        problems=(422, 503),
    ),
    Operation(
        method="GET",
        path="/v1/agents/{agent}/events",
        handler=timeline,
        name="timeline",
        summary="What happened, by time, type, session and role",
        tag="Events",
        params=TimelineParams,
        answers={200: (TimelinePage,)},
        problems=(422, 503),
    ),
)
