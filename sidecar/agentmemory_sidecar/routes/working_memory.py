"""The working-memory document: read, replaced, changed, deleted; its version is its ETag."""

from __future__ import annotations

from typing import Any

from aiohttp import hdrs, web
from msgspec import Raw, Struct

from agentmemory_engine.answers import Document as StoredDocument
from agentmemory_engine.answers import Receipt
from agentmemory_engine.errors import DocumentExpired, NoDocument, VersionConflict
from agentmemory_engine.positions import START, Position
from agentmemory_engine.turns import DocumentChange, Turn, decode
from agentmemory_sidecar.errors import UnsupportedMediaType
from agentmemory_sidecar.models import WriteReceipt
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
    """`version` asks for a kept snapshot instead of the document as it is."""

    version: str | None = None


async def read(request: web.Request) -> web.Response:
    """The bytes that were sent, or 304 where the reader has them."""
    agent, memory = agent_of(request), request.app[MEMORY]
    version = params_of(request, ReadParams).version if request.query_string else None
    if version is None:
        document = await memory.read_document(agent)
    else:
        document = await memory.read_snapshot(agent, Position.parse(version))
    return _respond(request, document)


def _respond(request: web.Request, document: StoredDocument) -> web.Response:
    version = str(document.version)
    headers = {hdrs.ETAG: f'"{version}"', hdrs.CONTENT_TYPE: JSON}
    if is_known_version(request, version):
        return web.Response(status=304, headers={hdrs.ETAG: headers[hdrs.ETAG]})
    return web.Response(body=document.body, headers=headers)


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
    except DocumentExpired:
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
        "GET", read, "readWorkingMemory", "The document as it was sent, or a kept snapshot of it",
        params=ReadParams, headers=(hdrs.IF_NONE_MATCH,), answers={200: (Document,), 304: ()}, problems=(404, 422, 503),
    ),
    _operation(
        "PUT", replace, "replaceWorkingMemory", "Replace the document",
        body={JSON: Document}, problems=(412, 413, 422, 503), **_WRITE,
    ),
    _operation(
        "PATCH", change, "changeWorkingMemory", "Change the document by a JSON Merge Patch or a JSON Patch",
        body={MERGE_PATCH: Document, JSON_PATCH: list[Raw]}, problems=(412, 413, 415, 422, 503), **_WRITE,
    ),
    _operation(
        "DELETE", delete, "deleteWorkingMemory", "Delete the document; what happened stays",
        problems=(404, 412, 422, 503), **_WRITE,
    ),
)  # fmt: skip
