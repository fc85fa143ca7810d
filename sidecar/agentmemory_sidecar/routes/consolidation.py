"""Consolidation: how far it has come, and waiting for it."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.turns import decode
from agentmemory_sidecar.models import BarrierAnswer, BarrierRequest, ConsolidationStatus, PositionState, status_of
from agentmemory_sidecar.operations import JSON, Operation
from agentmemory_sidecar.requests import AGENTS, MEMORY, body_of, no_params, params_of, position_of
from agentmemory_sidecar.responses import answer


class StatusParams(Struct, forbid_unknown_fields=True):
    """Both, to ask where one turn stands; neither, for the whole memory."""

    position: str | None = None
    agent: str | None = None


async def status(request: web.Request) -> web.Response:
    """Lag and counts, or where one position stands."""
    memory = request.app[MEMORY]
    params = params_of(request, StatusParams)
    if params.position is None and params.agent is None:
        return answer(status_of(await memory.status()))
    if params.position is None or params.agent is None:
        raise InvalidInput("`position` and `agent` go together.")
    agent = request.app[AGENTS].check(params.agent)
    state = await memory.state(agent, position_of(memory, agent, params.position))
    return answer(PositionState(position=params.position, state=state))


async def barrier(request: web.Request) -> web.Response:
    """Wait until all positions are durable, or searchable."""
    memory, agents = request.app[MEMORY], request.app[AGENTS]
    no_params(request)
    wish = decode(await body_of(request), BarrierRequest)
    positions = [(agents.check(one.agent), position_of(memory, one.agent, one.position)) for one in wish.positions]
    await memory.wait(positions, wish.until, wish.timeout_seconds)
    return answer(BarrierAnswer(reached=True, until=wish.until))


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/consolidation",
        handler=status,
        name="consolidationStatus",
        summary="Lag, counts and shards; or, by position and agent, where one turn stands",
        tag="Consolidation",
        params=StatusParams,
        answers={200: (ConsolidationStatus, PositionState)},
        problems=(422, 503),
    ),
    Operation(
        method="POST",
        path="/v1/consolidation/barrier",
        handler=barrier,
        name="waitForConsolidation",
        summary="Wait until turns are durable, or searchable",
        tag="Consolidation",
        body={JSON: BarrierRequest},
        answers={200: (BarrierAnswer,)},
        problems=(410, 413, 422, 503, 504),
    ),
)
