"""A server that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PROBLEMS = "https://agentmemory.io/problems/"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What to answer: `drop` closes the connection instead, `hang` never answers."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    hang: bool = False


DROP = Reply(drop=True)
HANG = Reply(hang=True)


def reply(document: Any, *, status: int = 200, **headers: str) -> Reply:
    return Reply(status=status, body=json.dumps(document).encode(), headers=headers)


def problem(
    code: str, status: int, *, detail: str = "why", headers: Mapping[str, str] | None = None, **more: Any
) -> Reply:
    document = {"type": PROBLEMS + code, "title": "T", "status": status, "detail": detail, "instance": "r1", **more}
    kind = {"Content-Type": "application/problem+json"}
    return Reply(status=status, body=json.dumps(document).encode(), headers=kind | dict(headers or {}))


class StubSidecar:
    """Gives its replies in order; the last one for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self._replies: list[Reply] = [Reply()]
        self._ended = asyncio.Event()

    def will(self, *replies: Reply) -> None:
        self._replies = list(replies)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            Seen(
                request.method, request.raw_path.partition("?")[0], tuple(request.query.items()), request.headers, body
            )
        )
        answer = self._replies[0] if len(self._replies) == 1 else self._replies.pop(0)
        if answer.hang:
            await self._ended.wait()
        if answer.drop or answer.hang:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[StubSidecar]:
        runner = web.ServerRunner(web.Server(self.handle))  # type: ignore[arg-type]
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._ended.set()
            await runner.cleanup()


@contextmanager
def serve_in_thread() -> Iterator[StubSidecar]:
    """A server in a thread of its own, for a tool that runs its own event loop."""
    server = StubSidecar()
    started, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server.serve():
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait()
    yield server
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()
