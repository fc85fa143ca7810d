"""The OpenAPI 3.1 document, made from the routes and the structs that they check and answer with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from itertools import chain
from typing import Any

import msgspec
from aiohttp import hdrs

from agentmemory_engine.keys import A_NAME
from agentmemory_engine.sessions import LONGEST_ID
from agentmemory_sidecar.guard import CLIENT, REQUEST_ID
from agentmemory_sidecar.models import Problem
from agentmemory_sidecar.operations import EVENT_STREAM, Bytes, Document, Operation
from agentmemory_sidecar.problems import CONTENT_TYPE
from agentmemory_sidecar.requests import IDEMPOTENCY_KEY, LAST_EVENT_ID

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"{(\w+)}")
_DOCUMENT: Json = {"type": "object", "description": "A working-memory document: any JSON object."}
_UNTYPED: dict[Any, Json] = {Document: _DOCUMENT, Bytes: {}}
_EVERYWHERE = (403, 500)
_NAME: Json = {"type": "string", **A_NAME}
_PATH_PARAMETERS: dict[str, Json] = {
    "agent": _NAME,
    "channel": _NAME,
    "group": _NAME,
    "id": {"type": "string", "format": "uuid"},
    "session": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
}
_HEADERS = {
    IDEMPOTENCY_KEY: "1 to 255 printable ASCII characters. The same key with the same body is one write.",
    hdrs.IF_MATCH: 'The version the document must have, as in its ETag: `"3.7-1042"`.',
    LAST_EVENT_ID: "Of an event stream: the position after which it goes on; in place of `after`.",
    hdrs.IF_NONE_MATCH: "`*`: there must be no document. On a read: versions that the reader has already.",
}
_PATTERNS = {
    IDEMPOTENCY_KEY: "^[ -~]{1,255}$",
    hdrs.IF_MATCH: '^"[^"]+"$',
}
_DESCRIPTION = """\
The memory of agents, on localhost. Every route wants the header `AgentMemory-Client`, and refuses a foreign `Host` and
any `Origin`. Errors are problem documents (RFC 9457): `type` ends in a stable code. What answers 503 may succeed when
it is repeated, a write with the same `Idempotency-Key`, after `Retry-After` seconds."""


def describe(operations: Sequence[Operation]) -> Json:
    """The document for these routes."""
    kinds = _kinds(operations)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    schema_of = dict(zip(map(str, kinds), schemas, strict=True))
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "AgentMemory", "version": version("agentmemory"), "description": _DESCRIPTION},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "security": [{"client": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "client": {"type": "apiKey", "in": "header", "name": CLIENT, "description": "Any name of the caller."}
            },
        },
    }


def _kinds(operations: Iterable[Operation]) -> list[Any]:
    """Every type that needs a schema, once."""
    kinds: dict[str, Any] = {str(Problem): Problem}
    for operation in operations:
        for kind in (*(operation.body or {}).values(), *chain.from_iterable(operation.answers.values())):
            if kind not in _UNTYPED:
                kinds[str(kind)] = kind
    return list(kinds.values())


def _operation(operation: Operation, schema_of: dict[str, Json]) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": {
            **{
                str(status): _answer(status, any_of, schema_of, operation.media)
                for status, any_of in operation.answers.items()
            },
            **{str(status): _refusal(status, schema_of) for status in sorted({*operation.problems, *_EVERYWHERE})},
        },
    }
    if operation.streams:
        described["responses"]["200"]["content"][EVENT_STREAM] = {"schema": {"type": "string"}}
    if operation.body is not None:
        content = {media: {"schema": _schema(kind, schema_of)} for media, kind in operation.body.items()}
        described["requestBody"] = {"required": not operation.bodiless, "content": content}
    return described


def _path_parameters(operation: Operation) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
        for name in _IN_PATH.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[Json]:
    components = msgspec.json.schema_components([operation.params])[1]
    properties = components[operation.params.__name__].get("properties", {})
    return [{"name": name, "in": "query", "schema": _given(schema)} for name, schema in properties.items()]


def _given(schema: Json) -> Json:
    """The schema of a parameter that is given: one that may be left out is null in the struct, never in a query."""
    given = {name: value for name, value in schema.items() if (name, value) != ("default", None)}
    others = [one for one in given.pop("anyOf", []) if one != {"type": "null"}]
    return given | (others[0] if len(others) == 1 else {"anyOf": others} if others else {})


def _header_parameters(operation: Operation) -> list[Json]:
    return [
        {
            "name": str(name),
            "in": "header",
            "schema": {"type": "string", **({"pattern": _PATTERNS[name]} if name in _PATTERNS else {})},
            "description": _HEADERS[name],
        }
        for name in operation.headers
    ]


def _schema(kind: Any, schema_of: dict[str, Json]) -> Json:
    return _UNTYPED[kind] if kind in _UNTYPED else schema_of[str(kind)]


def _answer(status: int, any_of: tuple[Any, ...], schema_of: dict[str, Json], media: str) -> Json:
    answer: Json = {
        "description": HTTPStatus(status).phrase,
        "headers": {REQUEST_ID: {"schema": {"type": "string"}}},
    }
    if any_of:
        one, *others = (_schema(kind, schema_of) for kind in any_of)
        answer["content"] = {media: {"schema": {"anyOf": [one, *others]} if others else one}}
    if Document in any_of:
        answer["headers"][str(hdrs.ETAG)] = {
            "schema": {"type": "string"},
            "description": "the document's version, quoted",
        }
    return answer


def _refusal(status: int, schema_of: dict[str, Json]) -> Json:
    refusal: Json = {
        "description": HTTPStatus(status).phrase,
        "content": {CONTENT_TYPE: {"schema": _schema(Problem, schema_of)}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        refusal["headers"] = {str(hdrs.RETRY_AFTER): {"schema": {"type": "integer"}, "description": "seconds"}}
    return refusal
