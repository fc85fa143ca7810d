"""The application behind the API's listener."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from aiohttp import web

from agentmemory_engine.memory import Memory
from agentmemory_sidecar.guard import make_guard
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.openapi import describe
from agentmemory_sidecar.operations import JSON
from agentmemory_sidecar.page import render
from agentmemory_sidecar.requests import AGENTS, MEMORY, AllowedAgents
from agentmemory_sidecar.routes import OPERATIONS

_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def make_app(
    memory: Memory, metrics: Metrics, *, max_body: int, agents: Sequence[str] = (), allow_whole: bool = False
) -> web.Application:
    """The API over `memory`. A body over `max_body` bytes is refused; `agents` limits which may be named; `allow_whole`
    allows export and erasure where it does not."""
    app = web.Application(middlewares=[make_guard(metrics)], client_max_size=max_body)
    app[MEMORY] = memory
    app[AGENTS] = AllowedAgents(agents, whole=allow_whole)
    for operation in OPERATIONS:
        # An empty agent id is the caller's mistake to be named, not an unknown route; `search` is the id of no fact.
        path = re.sub(r"{(agent|channel|group)}", r"{\1:[^/]*}", operation.path)
        path = path.replace("{id}", "{id:(?!search$)[^/]+}")
        app.router.add_route(operation.method, path, operation.handler)
    app.on_shutdown.append(_end_waiting)
    _add_description(app)
    return app


async def _end_waiting(app: web.Application) -> None:
    """Who waits for messages would hold up the end."""
    channels = app[MEMORY].parts.channels
    if channels is not None:
        channels.followers.stop()


def _add_description(app: web.Application) -> None:
    document = describe(OPERATIONS)
    body, page = msgspec.json.encode(document), render(document)

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=JSON)

    async def docs(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers=_PAGE_HEADERS)

    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/docs", docs)
