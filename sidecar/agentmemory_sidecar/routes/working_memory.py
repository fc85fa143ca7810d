"""The working-memory document: read, replaced, changed, deleted; its version is its ETag."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import hdrs, web
from msgspec import Meta, Raw, Struct

from agentmemory_engine.answers import Receipt
from agentmemory_engine.errors import DocumentExpired, NoDocument, UnreadableDocument, VersionConflict
from agentmemory_engine.positions import START, Position
from agentmemory_engine.selection import check_path
from agentmemory_engine.turns import DocumentChange, Turn, decode
from agentmemory_sidecar.errors import UnsupportedMediaType
from agentmemory_sidecar.models import SelectedValue, Selection, WriteReceipt
from agentmemory_sidecar.operations import JSON, JSON_PATCH, MERGE_PATCH, Document, Operation
from agentmemory_sidecar.requests import (
    IDEMPOTENCY_KEY,
    MEMORY,
    agent_of,
    body_of,
    expected_of,
    is_known_version,
    key_of,
    no_params,
    params_of,
)
from agentmemory_sidecar.responses import answer

PATH = "/v1/agents/{agent}/working-memory"


class ReadParams(Struct, forbid_unknown_fields=True):
    """`version` asks for a kept snapshot instead of the document as it is, `path` for parts of either."""

    version: str | None = None
    path: Annotated[str | None, Meta(description="a JSONPath (RFC 9535), such as `$.tasks[*].title`")] = None


async def read(request: web.Request) -> web.Response:
    """The bytes that were sent, or the parts of them that a path leads to; 304 where the reader has the version."""
    agent, memory = agent_of(request), request.app[MEMORY]
    params = params_of(request, ReadParams) if request.query_string else ReadParams()
    if params.path is not None:
        check_path(params.path)
    if params.version is None:
        document = await memory.read_document(agent)
    else:
        document = await memory.read_snapshot(agent, Position.parse(params.version))
    version = str(document.version)
    tag = {str(hdrs.ETAG): f'"{version}"'}
    if is_known_version(request, version):
        return web.Response(status=304, headers=tag)
    if params.path is None:
        return web.Response(body=document.body, headers={**tag, hdrs.CONTENT_TYPE: JSON})
    matches = [SelectedValue(path=path, value=value) for path, value in await memory.select(document, params.path)]
    return answer(Selection(version=version, matches=matches), headers=tag)


async def replace(request: web.Request) -> web.Response:
    """PUT: the body is the new document."""
    return await _write(request, DocumentChange(set=Raw(await body_of(request))))


async def change(request: web.Request) -> web.Response:
    """PATCH: a JSON Merge Patch, or a JSON Patch."""
    media_type = request.content_type
    body = await body_of(request)
    if media_type == JSON_PATCH:
        decode(body, list[Raw])
        return await _write(request, DocumentChange(patch=Raw(body)))
    if media_type in (MERGE_PATCH, JSON, "application/octet-stream"):
        decode(body, dict[str, Raw])
        return await _write(request, DocumentChange(merge=Raw(body)))
    known = f"{MERGE_PATCH}, {JSON_PATCH}"
    raise UnsupportedMediaType(f"A PATCH is {known} or {JSON} (a merge patch).", headers={"Accept-Patch": known})


async def delete(request: web.Request) -> web.Response:
    """DELETE; 404 where there is nothing to delete, unless an earlier try of this very request deleted it."""
    agent, memory = agent_of(request), request.app[MEMORY]
    try:
        await memory.read_document(agent)
    except NoDocument as missing:
        never = str(Position(memory.settings.shard_of(agent), START))
        try:
            return await _write(request, DocumentChange(delete=True), expected=never)
        except VersionConflict:
            raise missing from None
    except (DocumentExpired, UnreadableDocument):
        pass
    return await _write(request, DocumentChange(delete=True))


async def _write(request: web.Request, document: DocumentChange, *, expected: str | None = None) -> web.Response:
    agent = agent_of(request)
    no_params(request)
    receipt = await request.app[MEMORY].record(
        agent, Turn(working_memory=document), key=key_of(request), if_match=expected or expected_of(request)
    )
    return answer(_receipt(receipt))


def _receipt(receipt: Receipt) -> WriteReceipt:
    version = None if receipt.version is None else str(receipt.version)
    return WriteReceipt(position=str(receipt.position), version=version, repeated=receipt.repeated)


def _operation(method: str, handler: Any, name: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method, path=PATH, handler=handler, name=name, summary=summary, tag="Working memory", **more
    )


_WRITE: dict[str, Any] = {
    "headers": (IDEMPOTENCY_KEY, hdrs.IF_MATCH, hdrs.IF_NONE_MATCH),
    "answers": {200: (WriteReceipt,)},
}
OPERATIONS = (
    _operation(
        "GET", read, "readWorkingMemory", "The document as it was sent, a kept snapshot of it, or parts of either",
        params=ReadParams, headers=(hdrs.IF_NONE_MATCH,), answers={200: (Document, Selection), 304: ()},
        problems=(404, 409, 422, 503),
    ),
    _operation(
        "PUT", replace, "replaceWorkingMemory", "Replace the document",
        body={JSON: Document}, problems=(412, 413, 422, 503), **_WRITE,
    ),
    _operation(
        "PATCH", change, "changeWorkingMemory", "Change the document by a JSON Merge Patch or a JSON Patch",
        body={MERGE_PATCH: Document, JSON_PATCH: list[Raw]}, problems=(409, 412, 413, 415, 422, 503), **_WRITE,
    ),
    _operation(
        "DELETE", delete, "deleteWorkingMemory", "Delete the document; what happened stays",
        problems=(404, 412, 422, 503), **_WRITE,
    ),
)  # fmt: skip
