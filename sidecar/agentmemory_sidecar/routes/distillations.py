"""Distillations: sessions that facts are to be drawn from; asked for, listed, forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Struct

from agentmemory_engine import answers
from agentmemory_sidecar.models import AgentId, Deleted
from agentmemory_sidecar.operations import Operation
from agentmemory_sidecar.requests import AGENTS, MEMORY, agent_of, no_params, params_of
from agentmemory_sidecar.responses import answer

PATH = "/v1/agents/{agent}/sessions/{session}/distillation"


class Distillation(Struct, kw_only=True):
    """A session that facts are to be drawn from. `attempts` were refused in a row; `refused` says why the last one."""

    agent: AgentId
    session: str
    asked_at: datetime
    attempts: int
    refused: str | None
    given_up: bool


class DistillationPage(Struct, kw_only=True):
    """In the order in which they were asked for; `cursor` continues it, null at the end."""

    distillations: list[Distillation]
    cursor: str | None


class ListParams(Struct, forbid_unknown_fields=True):
    """A page of them."""

    given_up: Annotated[bool | None, Meta(description="only those that were given up, or that wait")] = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


async def ask(request: web.Request) -> web.Response:
    """202: it is in the queue."""
    agent = agent_of(request)
    no_params(request)
    asked = await request.app[MEMORY].distillations.ask(agent, request.match_info["session"])
    return answer(_distillation(asked), status=202)


async def forget(request: web.Request) -> web.Response:
    """What was drawn stays."""
    agent = agent_of(request)
    no_params(request)
    await request.app[MEMORY].distillations.forget(agent, request.match_info["session"])
    return answer(Deleted(True))


async def list_distillations(request: web.Request) -> web.Response:
    """Those of agents that this pod may not name are passed over."""
    params = params_of(request, ListParams)
    found, cursor = await request.app[MEMORY].distillations.page(
        given_up=params.given_up, cursor=params.cursor, limit=params.limit
    )
    agents = request.app[AGENTS]
    allowed = [_distillation(one) for one in found if agents.allows(one.agent)]
    return answer(DistillationPage(distillations=allowed, cursor=cursor))


def _distillation(one: answers.Distillation) -> Distillation:
    return Distillation(
        agent=one.agent,
        session=one.session,
        asked_at=one.asked_at,
        attempts=one.attempts,
        refused=one.refused,
        given_up=one.given_up,
    )


def _operation(method: str, path: str, handler: Any, name: str, summary: str, **more: Any) -> Operation:
    return Operation(method=method, path=path, handler=handler, name=name, summary=summary, tag="Sessions", **more)


OPERATIONS = (
    _operation(
        "POST", PATH, ask, "distilSession", "Have facts drawn from a session, whatever was drawn or given up before",
        answers={202: (Distillation,)}, problems=(404, 409, 422, 501, 503),
    ),
    _operation(
        "DELETE", PATH, forget, "forgetDistillation", "Draw nothing more from it; what was drawn stays",
        answers={200: (Deleted,)}, problems=(404, 422, 501, 503),
    ),
    _operation(
        "GET", "/v1/distillations", list_distillations, "listDistillations",
        "Sessions that facts are still to be drawn from, and those that were given up, with the reason",
        params=ListParams, answers={200: (DistillationPage,)}, problems=(422, 501, 503),
    ),
)  # fmt: skip
