"""A server with the API of OpenAI's chat completions, that fails as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from support.loopback import serving

Answer = web.StreamResponse | None
Fault = Callable[[Mapping[str, Any]], Answer]
"""What is answered to a request instead; None: what is right."""


def failing(status: int, **headers: str) -> Fault:
    """Answers with this status, in words that no log may repeat; an underscore in a header's name is a hyphen."""
    body = json.dumps({"error": {"message": "secret", "code": "the_code"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(status=status, body=body, headers=named)


def saying(content: str | None, finish_reason: str = "stop", **members: Any) -> Fault:
    """Answers with this text, whatever was asked."""
    message = {"role": "assistant", "content": content, **members}
    return lambda _: web.json_response({"choices": [{"message": message, "finish_reason": finish_reason}]})


def lines_of(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events that were told in a question; none in one that asks whether anyone is there."""
    told = request["messages"][-1]["content"]
    return [json.loads(line) for line in told.splitlines()] if told.startswith('{"event"') else []


def fact(line: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn from an event `key is content`: a fact with that key."""
    key, _, _ = str(line["text"]).partition(" is ")
    return {
        "key": key[:40], "topic": "things", "content": line["text"][:200], "confidence": 0.75,
        "sources": [line["event"]],
    }  # fmt: skip


class StubChat:
    """Draws a fact from each event. `faults` are for the next requests, one each (None: no fault); `always` is for
    those after them."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.asked = asyncio.Event()
        """Set when a question about a session has come."""
        self.open = asyncio.Event()
        """Cleared, it keeps questions about sessions waiting."""
        self.open.set()

    def told(self) -> list[list[str]]:
        """The texts of the events in each question about a session."""
        return [[line["text"] for line in lines] for one in self.seen if (lines := lines_of(one))]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/v1/chat/completions" and request.method == "POST"
        asked = json.loads(await request.read())
        self.seen.append(asked)
        self.keys.append(request.headers.get("Authorization"))
        lines = lines_of(asked)
        if lines:
            self.asked.set()
            await self.open.wait()
        fault = self.faults.pop(0) if self.faults else self.always
        answer = fault(asked) if fault is not None else None
        if answer is not None:
            return answer
        right = saying(json.dumps({"facts": [fact(line) for line in lines]}))(asked)
        assert right is not None
        return right

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[StubChat]:
        async with serving(self.handle, self.open.set) as url:
            self.url = url + "/v1"
            yield self
