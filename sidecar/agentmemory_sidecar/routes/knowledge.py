"""Knowledge: facts, what was believed when, and search in what is believed."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from agentmemory_engine.errors import NoFact
from agentmemory_engine.fact_search import FactQuery
from agentmemory_engine.facts import FactChange, FactFilter, NewFact
from agentmemory_engine.knowledge import KnowledgeQuery
from agentmemory_engine.semantic import Strategy
from agentmemory_engine.turns import decode
from agentmemory_sidecar.models import LONGEST_QUERY, Fact, FoundFact, Moment, believed, found_fact
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

PATH = "/v1/agents/{agent}/knowledge"


class FactList(Struct, kw_only=True):
    """Newest belief first. `cursor` continues it; null at the end."""

    facts: list[Fact]
    cursor: str | None


class ErasedFact(Struct, kw_only=True):
    """How many versions of the fact are gone."""

    erased: int


class KnowledgeParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which facts: those believed now, unless `at`, `history` or `versions_of` is given. `topic` may be repeated."""

    key: str | None = None
    topic: list[str] = []
    metadata: Annotated[str | None, Meta(description="a JSON object that the fact's metadata contains")] = None
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    at: Annotated[Moment | None, Meta(description="what was believed then")] = None
    history: Annotated[bool, Meta(description="what is no longer believed as well")] = False
    versions_of: Annotated[UUID | None, Meta(description="every version of the fact that has one of this id")] = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


class EndParams(Struct, kw_only=True, forbid_unknown_fields=True):
    """`erase` removes the fact with its history, and all that was ever believed under its key."""

    erase: bool = False


class SearchFilter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which facts may be found; `metadata` is contained in the fact's, `at` asks for what was believed then."""

    key: str | None = None
    topics: list[str] | None = None
    metadata: dict[str, Raw] | None = None
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    at: Moment | None = None


class SearchRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """What to look for, by meaning, by its words, or by both."""

    query: Annotated[str, Meta(max_length=LONGEST_QUERY)]
    k: Annotated[int, Meta(ge=1, le=100)] = 5
    strategy: Strategy = "hybrid"
    filter: SearchFilter = SearchFilter()
    min_score: Annotated[float, Meta(ge=0, le=1)] | None = None


class SearchAnswer(Struct, kw_only=True):
    """Best first. `not_yet_embedded` facts have no vector yet and are found by their words only; `degraded` holds
    `semantic` where none could be found by meaning."""

    hits: list[FoundFact]
    not_yet_embedded: int
    degraded: list[str]


async def put(request: web.Request) -> web.Response:
    """201 for a new version, 200 for one that is there."""
    agent = agent_of(request)
    no_params(request)
    new = decode(await body_of(request), NewFact)
    fact, is_new = await request.app[MEMORY].knowledge.put(agent, new, key=key_of(request))
    return answer(believed(fact), status=201 if is_new else 200)


async def list_facts(request: web.Request) -> web.Response:
    """A page of them."""
    agent = agent_of(request)
    params = params_of(request, KnowledgeParams)
    wanted = FactFilter(
        key=params.key,
        topics=params.topic or None,
        metadata=object_of(params.metadata, "metadata"),
        min_confidence=params.min_confidence,
        at=params.at,
    )
    query = KnowledgeQuery(
        filter=wanted,
        history=params.history,
        versions_of=params.versions_of,
        limit=params.limit,
        cursor=params.cursor,
    )
    page = await request.app[MEMORY].knowledge.page(agent, query)
    return answer(FactList(facts=[believed(fact) for fact in page.facts], cursor=page.cursor))


async def read(request: web.Request) -> web.Response:
    """One version of a fact."""
    agent = agent_of(request)
    no_params(request)
    return answer(believed(await request.app[MEMORY].knowledge.read(agent, _id(request))))


async def change(request: web.Request) -> web.Response:
    """201 for a new version, 200 where it says that already."""
    agent = agent_of(request)
    no_params(request)
    wish = decode(await body_of(request), FactChange)
    fact, is_new = await request.app[MEMORY].knowledge.change(agent, _id(request), wish, key=key_of(request))
    return answer(believed(fact), status=201 if is_new else 200)


async def end(request: web.Request) -> web.Response:
    """Believe it no longer; or, with `erase`, forget that it ever was."""
    agent = agent_of(request)
    knowledge, identity = request.app[MEMORY].knowledge, _id(request)
    if params_of(request, EndParams).erase:
        return answer(ErasedFact(erased=await knowledge.erase(agent, identity)))
    return answer(believed(await knowledge.end(agent, identity)))


async def search(request: web.Request) -> web.Response:
    """The facts that match best."""
    agent = agent_of(request)
    no_params(request)
    question = decode(await body_of(request), SearchRequest)
    query = FactQuery(
        query=question.query,
        k=question.k,
        strategy=question.strategy,
        filter=_filter(question.filter),
        min_score=question.min_score or 0.0,
    )
    found = await request.app[MEMORY].knowledge.search(agent, query)
    hits = [found_fact(hit) for hit in found.hits]
    return answer(SearchAnswer(hits=hits, not_yet_embedded=found.not_yet_embedded, degraded=found.degraded))


def _filter(given: SearchFilter) -> FactFilter:
    return FactFilter(
        key=given.key,
        topics=given.topics,
        metadata=None if given.metadata is None else msgspec.json.encode(given.metadata),
        min_confidence=given.min_confidence,
        at=given.at,
    )


def _id(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise NoFact("There is no such fact: its id is a UUID, as an answer gave it.") from None


def _operation(method: str, path: str, handler: Any, name: str, summary: str, **more: Any) -> Operation:
    return Operation(method=method, path=path, handler=handler, name=name, summary=summary, tag="Knowledge", **more)


_WRITE: dict[str, Any] = {"headers": (IDEMPOTENCY_KEY,), "answers": {201: (Fact,), 200: (Fact,)}}
OPERATIONS = (
    _operation(
        "POST", PATH, put, "putFact", "Believe a fact, in the place of what is believed under its key",
        body={JSON: NewFact}, problems=(413, 422, 503), **_WRITE,
    ),
    _operation(
        "GET", PATH, list_facts, "listFacts", "What is believed, or was, newest belief first",
        params=KnowledgeParams, answers={200: (FactList,)}, problems=(422, 503),
    ),
    _operation(
        "GET", PATH + "/{id}", read, "readFact", "One version of a fact, believed or not",
        answers={200: (Fact,)}, problems=(404, 422, 503),
    ),
    _operation(
        "PATCH", PATH + "/{id}", change, "changeFact", "Believe a changed version; the one before stays history",
        body={JSON: FactChange}, problems=(404, 409, 413, 422, 503), **_WRITE,
    ),
    _operation(
        "DELETE", PATH + "/{id}", end, "endFact", "Believe a fact no longer; with `erase`, remove it and its history",
        params=EndParams, answers={200: (Fact, ErasedFact)}, problems=(404, 409, 422, 503),
    ),
    _operation(
        "POST", PATH + "/search", search, "searchKnowledge", "The facts that match best, by meaning and by words",
        body={JSON: SearchRequest}, answers={200: (SearchAnswer,)}, problems=(413, 422, 503),
    ),
)  # fmt: skip
