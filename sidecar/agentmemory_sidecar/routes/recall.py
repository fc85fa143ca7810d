"""Recall, and hydrate."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from aiohttp import web

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.events import Filter
from agentmemory_engine.hydrate import HydrateQuery
from agentmemory_engine.recall import RecallQuery, Recency
from agentmemory_engine.turns import check_moment, decode
from agentmemory_sidecar.models import (
    HydrateAnswer,
    HydrateRequest,
    RecallAnswer,
    RecallFilter,
    RecallRequest,
    RecencyWish,
    hydrated,
    recalled_of,
)
from agentmemory_sidecar.operations import JSON, Operation
from agentmemory_sidecar.quantities import parse_duration
from agentmemory_sidecar.requests import MEMORY, agent_of, body_of, no_params
from agentmemory_sidecar.responses import answer


async def recall(request: web.Request) -> web.Response:
    """The best matches for a text or a vector."""
    agent = agent_of(request)
    no_params(request)
    question = decode(await body_of(request), RecallRequest)
    query = RecallQuery(
        query=question.query,
        vector=question.vector,
        k=question.k,
        strategy=question.strategy,
        filter=_filter(question.filter),
        min_score=question.min_score or 0.0,
        recency=None if question.recency is None else _recency(question.recency),
        diversity=question.diversity,
        named_times=question.named_times,
        zone=_zone(question.time_zone),
    )
    memory, events_only = request.app[MEMORY], set(question.include) == {"events"}
    found = await (memory.recall(agent, query) if events_only else memory.recall_of(agent, query, question.include))
    return answer(
        RecallAnswer(
            hits=[recalled_of(hit) for hit in found.hits],
            approximate=found.approximate,
            not_yet_searchable=found.not_yet_searchable,
            degraded=found.degraded,
        )
    )


def _recency(wish: RecencyWish) -> Recency:
    try:
        half_life = parse_duration(wish.half_life)
    except ValueError as error:
        raise InvalidInput(f"`recency.half_life`: {error}.") from None
    if half_life <= 0:
        raise InvalidInput("`recency.half_life` has to be more than nothing; write it like 7d.")
    return Recency(half_life=half_life, weight=wish.weight)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):
        raise InvalidInput(
            f"`time_zone`: {name!r} is no time zone; name it like Europe/Vienna, or leave it out."
        ) from None
    except ZoneInfoNotFoundError:
        raise InvalidInput(
            f"`time_zone`: {name!r} is not known here; name it like Europe/Vienna, or leave it out."
        ) from None


def _filter(given: RecallFilter) -> Filter:
    for moment in (given.since, given.until):
        if moment is not None:
            check_moment(moment)
    return Filter(
        types=given.types,
        session=given.session,
        since=given.since,
        until=given.until,
        metadata=None if given.metadata is None else msgspec.json.encode(given.metadata),
    )


async def hydrate(request: web.Request) -> web.Response:
    """An agent's context, within a budget."""
    agent = agent_of(request)
    no_params(request)
    wish = decode(await body_of(request) or b"{}", HydrateRequest)
    query = HydrateQuery(query=wish.query, tokens=wish.budget.tokens, k=wish.k, restore=wish.restore)
    return answer(hydrated(await request.app[MEMORY].hydrate(agent, query)))


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/agents/{agent}/recall",
        handler=recall,
        name="recall",
        summary="The events, facts or both that answer a query best, among what the filters let through",
        tag="Recall",
        body={JSON: RecallRequest},
        answers={200: (RecallAnswer,)},
        problems=(413, 422, 503),
    ),
    Operation(
        method="POST",
        path="/v1/agents/{agent}/hydrate",
        handler=hydrate,
        name="hydrate",
        summary="The context to wake up with: working memory, recent and recalled events, in a budget",
        tag="Recall",
        body={JSON: HydrateRequest},
        bodiless=True,
        answers={200: (HydrateAnswer,)},
        problems=(413, 422, 503),
    ),
)
