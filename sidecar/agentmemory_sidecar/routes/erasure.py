"""Erasure: an agent is forgotten in every tier."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from agentmemory_sidecar.operations import Operation
from agentmemory_sidecar.requests import IDEMPOTENCY_KEY, MEMORY, key_of, params_of, whole_agent_of
from agentmemory_sidecar.responses import answer
from agentmemory_sidecar.whole import ErasureAccepted, ErasureDone, erasure_of


class EraseParams(Struct, forbid_unknown_fields=True):
    """How long to wait for it at most."""

    timeout_seconds: Annotated[float, Meta(ge=0, le=60)] = 10.0


async def erase(request: web.Request) -> web.Response:
    """200 with the receipt, or 202 where it is not carried out in that time."""
    agent = whole_agent_of(request)
    seconds = params_of(request, EraseParams).timeout_seconds
    memory = request.app[MEMORY]
    receipt = await memory.erase(agent, key=key_of(request), seconds=seconds)
    return answer(erasure_of(receipt, memory.settings.mode), status=200 if receipt.erased else 202)


OPERATIONS = (
    Operation(
        method="DELETE",
        path="/v1/agents/{agent}",
        handler=erase,
        name="eraseAgent",
        summary="Erase all that was accepted of the agent before, in every tier; what is written after is a new life",
        tag="Whole agents",
        params=EraseParams,
        headers=(IDEMPOTENCY_KEY,),
        answers={200: (ErasureDone,), 202: (ErasureAccepted,)},
        problems=(410, 422, 503),
    ),
)
