"""A route as data: the application serves it, and the OpenAPI document describes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from msgspec import Struct

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NDJSON = "application/x-ndjson"
JSON_PATCH = "application/json-patch+json"
BYTES = "application/octet-stream"
EVENT_STREAM = "text/event-stream"


class Document:
    """Stands for a working-memory document in a description: any JSON object."""


class Bytes:
    """Stands for an answer of any bytes in a description."""


class NoParams(Struct, forbid_unknown_fields=True):
    """A route without query parameters."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    `body` maps each media type to its struct, `answers` each status to the structs that it may carry as `media` (of
    NDJSON: each line); `problems` are the statuses of its refusals beside those that every route may answer.
    """

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    name: str
    summary: str
    tag: str
    body: Mapping[str, Any] | None = None
    bodiless: bool = False
    """Whether the body may be left out."""
    params: type[Struct] = NoParams
    headers: tuple[str, ...] = ()
    answers: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    media: str = JSON
    streams: bool = False
    """Whether what it answers comes as server-sent events as well."""
    problems: tuple[int, ...] = ()
