"""What happened: the recent messages, and the timeline."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Raw, Struct

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Filter, TimelineQuery
from agentmemory_engine.turns import check_moment, decode
from agentmemory_sidecar.models import (
    AgentId,
    AgentsTimelinePage,
    Moment,
    RecentMessages,
    TimelinePage,
    recorded,
    recorded_of,
)
from agentmemory_sidecar.operations import Operation
from agentmemory_sidecar.requests import AGENTS, MEMORY, agent_of, params_of
from agentmemory_sidecar.responses import answer


class RecentParams(Struct, forbid_unknown_fields=True):
    """How many messages."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class TimelineParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which events; `until` is exclusive, `type` may be repeated. `cursor` is from a page of the same query."""

    since: Moment | None = None
    until: Moment | None = None
    type: list[str] = []
    session: str | None = None
    role: str | None = None
    metadata: Annotated[str | None, Meta(description="a JSON object that the event's metadata contains")] = None
    order: Literal["asc", "desc"] = "asc"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None

    def query(self) -> TimelineQuery:
        """As the engine takes it. Raises InvalidInput for metadata that is no JSON object."""
        for moment in (self.since, self.until):
            if moment is not None:
                check_moment(moment)
        metadata = None
        if self.metadata is not None:
            metadata = self.metadata.encode(errors="surrogatepass")
            decode(metadata, dict[str, Raw])
        wanted = Filter(
            types=self.type or None, session=self.session, role=self.role, since=self.since, until=self.until,
            metadata=metadata,
        )  # fmt: skip
        return TimelineQuery(filter=wanted, order=self.order, limit=self.limit, cursor=self.cursor)


class TimelinesParams(TimelineParams, kw_only=True, forbid_unknown_fields=True):
    """`agents` may be repeated; left out, it is all that this pod may name, where they are named one by one."""

    agents: list[AgentId] = []
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


async def recent(request: web.Request) -> web.Response:
    """The last messages, oldest first."""
    agent = agent_of(request)
    page = await request.app[MEMORY].recent(agent, params_of(request, RecentParams).limit)
    return answer(RecentMessages(messages=[recorded(event) for event in page.events], degraded=page.degraded))


async def timeline(request: web.Request) -> web.Response:
    """A page of what happened."""
    agent = agent_of(request)
    page = await request.app[MEMORY].timeline(agent, params_of(request, TimelineParams).query())
    events = [recorded(event) for event in page.events]
    return answer(TimelinePage(events=events, cursor=page.cursor, degraded=page.degraded))


async def timelines(request: web.Request) -> web.Response:
    """A page of what several agents did."""
    allowed, params = request.app[AGENTS], params_of(request, TimelinesParams)
    agents = [allowed.check(agent) for agent in params.agents] or allowed.named
    if not agents:
        raise InvalidInput("Say whose events: agents=…, once for each agent.")
    page = await request.app[MEMORY].timelines(agents, params.query())
    events = [recorded_of(agent, event) for agent, event in page.events]
    return answer(AgentsTimelinePage(events=events, cursor=page.cursor, degraded=page.degraded))


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
        summary="What happened, by time, type, session, role and metadata",
        tag="Events",
        params=TimelineParams,
        answers={200: (TimelinePage,)},
        problems=(422, 503),
    ),
    Operation(
        method="GET",
        path="/v1/events",
        handler=timelines,
        name="timelines",
        summary="What several agents did: by time of acceptance, each agent's events in their own order",
        tag="Events",
        params=TimelinesParams,
        answers={200: (AgentsTimelinePage,)},
        problems=(422, 503),
    ),
)
