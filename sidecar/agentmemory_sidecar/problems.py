"""Errors as RFC 9457 problem documents: one table from type to status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from agentmemory_engine.errors import (
    BarrierTimeout,
    DistillationOff,
    DocumentExpired,
    FactEnded,
    InvalidInput,
    MemoryFault,
    Missing,
    ModelInUse,
    NotInThisMode,
    PositionLost,
    StoreUnavailable,
    TooLarge,
    Unavailable,
    UnreadableDocument,
    VersionConflict,
)
from agentmemory_sidecar.errors import Refusal

logger = logging.getLogger(__name__)

PROBLEMS = "https://agentmemory.io/problems/"
CONTENT_TYPE = "application/problem+json"
STATUSES: Mapping[type[MemoryFault], int] = {
    InvalidInput: 422,
    TooLarge: 413,
    Missing: 404,
    FactEnded: 409,
    ModelInUse: 409,
    UnreadableDocument: 409,
    DistillationOff: 409,
    VersionConflict: 412,
    NotInThisMode: 501,
    PositionLost: 410,
    BarrierTimeout: 504,
    Unavailable: 503,
}
_PLAIN = {
    400: ("bad-request", "Bad request"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    413: (TooLarge.code, TooLarge.title),
}


def status_of_fault(kind: type[MemoryFault]) -> int:
    """The HTTP status of an engine error; 500 for one that is not meant to reach a client."""
    return next((STATUSES[base] for base in kind.__mro__ if base in STATUSES), 500)


def problem_of(error: Exception, request: web.Request, request_id: str) -> web.Response:
    """The answer that an exception becomes. One that nobody foresaw is logged, and tells a client nothing."""
    if isinstance(error, MemoryFault):
        headers = {str(hdrs.RETRY_AFTER): str(error.retry_after)} if isinstance(error, Unavailable) else {}
        status, members = status_of_fault(type(error)), _members(error, request)
        return problem(error.code, error.title, status, str(error), request_id, headers=headers, members=members)
    if isinstance(error, Refusal):
        return problem(error.code, error.title, error.status, str(error), request_id, headers=error.headers)
    if isinstance(error, web.HTTPException):
        return _plain(error, request, request_id)
    logger.error("request %s failed: %s %s", request_id, request.method, _template(request), exc_info=error)
    detail = "The sidecar failed on this request; its log has the reason under the id in `instance`."
    return problem("internal", "Internal error", 500, detail, request_id)


def _members(error: MemoryFault, request: web.Request) -> dict[str, Any]:
    match error:
        case DocumentExpired(version=None):
            return {}
        case DocumentExpired():
            # Of what an agent id may hold, nothing needs quoting in a path.
            agent = request.match_info["agent"]
            return {"version": error.version, "snapshot": f"/v1/agents/{agent}/working-memory?version={error.version}"}
        case UnreadableDocument():
            return {"version": error.version}
        case VersionConflict() | FactEnded():
            return {"current": error.current}
        case StoreUnavailable():
            return {"store": error.store}
    return {}


def _plain(error: web.HTTPException, request: web.Request, request_id: str) -> web.Response:
    """What aiohttp refuses by itself: an unknown route or method, a body over the limit."""
    code, title = _PLAIN.get(error.status, (f"http-{error.status}", error.reason))
    details = {
        404: "There is no such route; /openapi.json lists them.",
        405: f"This route does not take {request.method[:20]}.",
        413: "The body is over the limit (AGENTMEMORY_MAX_BODY); send less at once.",
    }
    allow = error.headers.get(hdrs.ALLOW)
    headers = {str(hdrs.ALLOW): allow} if allow else {}
    detail = details.get(error.status, error.reason)
    return problem(code, title, error.status, detail, request_id, headers=headers)


def problem(
    code: str, title: str, status: int, detail: str, request_id: str, *, headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> web.Response:  # fmt: skip
    """A problem document as an answer; `members` come beside the five of the standard."""
    document = {
        "type": PROBLEMS + code, "title": title, "status": status, "detail": detail, "instance": request_id,
        **(members or {}),
    }  # fmt: skip
    return web.Response(body=msgspec.json.encode(document), status=status, content_type=CONTENT_TYPE, headers=headers)


def _template(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "an unknown route"
