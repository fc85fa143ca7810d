"""Turns: what an agent reports at once."""

from __future__ import annotations

from aiohttp import hdrs, web

from agentmemory_engine.turns import Turn, parse_turn
from agentmemory_sidecar.models import EventId, TurnReceipt
from agentmemory_sidecar.operations import JSON, Operation
from agentmemory_sidecar.requests import IDEMPOTENCY_KEY, MEMORY, agent_of, body_of, expected_of, key_of, no_params
from agentmemory_sidecar.responses import answer


async def record(request: web.Request) -> web.Response:
    """201 for a turn that was accepted now, 200 for one that was before."""
    agent = agent_of(request)
    no_params(request)
    key, expected = key_of(request), expected_of(request)
    turn = parse_turn(await body_of(request))
    receipt = await request.app[MEMORY].record(agent, turn, key=key, if_match=expected)
    accepted = TurnReceipt(
        position=str(receipt.position),
        version=None if receipt.version is None else str(receipt.version),
        events=[EventId(event) for event in receipt.events],
        repeated=receipt.repeated,
    )
    return answer(accepted, status=200 if receipt.repeated else 201)


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/agents/{agent}/turns",
        handler=record,
        name="recordTurn",
        summary="Events and, optionally, a change of the document: all of it or nothing",
        tag="Turns",
        body={JSON: Turn},
        headers=(IDEMPOTENCY_KEY, hdrs.IF_MATCH, hdrs.IF_NONE_MATCH),
        answers={201: (TurnReceipt,), 200: (TurnReceipt,)},
        problems=(412, 413, 422, 503),
    ),
)
