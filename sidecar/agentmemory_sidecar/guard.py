"""The middleware around every route of the API: who may ask, what an error becomes, how long it took.

An agent may hold a tool that fetches any URL. Such a tool sends no header of its own choosing, names the host of the
URL, and a page's script sends its origin: none of these may reach the memory.
"""

from __future__ import annotations

import re
import secrets
import time
from itertools import count

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from agentmemory_sidecar.errors import ClientGone, ClientHeaderMissing, ForeignOrigin
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.problems import problem_of

CLIENT = "AgentMemory-Client"
REQUEST_ID = "AgentMemory-Request-Id"
REQUEST_KEY = web.RequestKey("request-id", str)
OPEN_PATHS = frozenset(("/openapi.json", "/docs"))
_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE | re.ASCII)


def check_caller(request: web.Request) -> None:
    """Raises ForeignOrigin, ClientHeaderMissing."""
    headers = request.headers
    if _HOST.fullmatch(headers.get(hdrs.HOST, "")) is None:
        raise ForeignOrigin("The Host is none of localhost, 127.0.0.1 and [::1]; ask the sidecar under one of these.")
    if hdrs.ORIGIN in headers:
        raise ForeignOrigin("Requests of web pages are refused: leave the Origin header out.")
    if not headers.get(CLIENT) and request.path not in OPEN_PATHS:
        raise ClientHeaderMissing(f"Send the header {CLIENT}: <a name for your program>.")


def make_guard(metrics: Metrics) -> Middleware:
    """The middleware of one application."""
    prefix = secrets.token_hex(5)
    numbers = count(1)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = f"{prefix}-{next(numbers):x}"
        request[REQUEST_KEY] = request_id
        response: web.StreamResponse
        try:
            check_caller(request)
            response = await handler(request)
        except ClientGone:
            # Nobody reads it; it is there for the metrics.
            response = web.Response(status=400)
        except Exception as error:
            response = problem_of(error, request, request_id)
        response.headers[REQUEST_ID] = request_id
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unmatched"
        metrics.count_request(route, request.method, response.status, time.perf_counter() - started)
        return response

    return guard
