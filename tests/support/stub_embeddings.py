"""A server with the API of OpenAI's embeddings, that fails as it is told to."""

from __future__ import annotations

import asyncio
import json
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from support.loopback import serving

Answer = web.StreamResponse | None
Fault = Callable[[Mapping[str, Any]], Answer]
"""What is answered to a request instead; None: what is right."""


def vector_of(text: str, dimensions: int) -> list[float]:
    """As many letters as there are dimensions, counted; one more of each, so that there is a direction."""
    return [1.0 + text.count(chr(97 + number % 26)) for number in range(dimensions)]


def failing(status: int, document: Any = None, **headers: str) -> Fault:
    """Answers with this status; an underscore in a header's name is a hyphen."""
    body = json.dumps(document if document is not None else {"error": {"message": "secret", "code": "the_code"}})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(status=status, body=body.encode(), headers=named)


def answering(data: Any) -> Fault:
    """Answers 200 with these items, whatever was asked; bytes as they are."""
    body = data if isinstance(data, bytes) else json.dumps({"data": data}).encode()
    return lambda _: web.Response(body=body)


class StubEmbeddings:
    """Embeds. `faults` are for the next requests, one each (None: no fault); `always` is for those after them."""

    def __init__(self, *, dimensions: int = 8) -> None:
        self.url = ""
        self.dimensions = dimensions
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.hanging = asyncio.Event()
        """Set when a request hangs."""
        self._ended = asyncio.Event()

    def inputs(self) -> list[list[str]]:
        """The texts of each request."""
        return [list(request["input"]) for request in self.seen]

    def hang(self, _: Mapping[str, Any]) -> Answer:
        """A fault: never answer."""
        return web.StreamResponse(status=599)

    def embedded(self, texts: Sequence[str], request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The items of a right answer, the last first."""
        dimensions = request.get("dimensions", self.dimensions)
        items = []
        for index, text in enumerate(texts):
            values: Any = vector_of(text, dimensions)
            if request.get("encoding_format") == "base64":
                values = b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
            items.append({"object": "embedding", "index": index, "embedding": values})
        return items[::-1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/v1/embeddings" and request.method == "POST"
        asked = json.loads(await request.read())
        self.seen.append(asked)
        self.keys.append(request.headers.get("Authorization"))
        fault = self.faults.pop(0) if self.faults else self.always
        answer = fault(asked) if fault is not None else None
        if answer is not None and answer.status == 599:
            self.hanging.set()
            await self._ended.wait()
        return answer or web.json_response({"object": "list", "data": self.embedded(asked["input"], asked)})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[StubEmbeddings]:
        async with serving(self.handle, self._ended.set) as url:
            self.url = url + "/v1"
            yield self
