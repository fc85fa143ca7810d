"""The part of an API server that keeps AgentMemories: list and watch, and its ways to fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

PATH = "/apis/agentmemory.io/v1alpha1"


class StubKubeApi:
    """What is put into it is listed and watched. Set `down`, `hang`, `refuse` or `silent` to make it fail."""

    def __init__(self) -> None:
        self.url = ""
        self.down = False
        """Closes every connection."""
        self.hang = False
        """Never answers a list."""
        self.refuse = 0
        """Answers this status."""
        self.silent = False
        """Ends every watch at once."""
        self.gone_as_event = False
        """Tells within a watch, not by its status, that a version is too old."""
        self.lists: list[str | None] = []
        self.watches: list[tuple[str | None, int]] = []
        self.tokens: set[str] = set()
        self._version = 10
        self._oldest = 0
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._events: list[tuple[int, str | None, bytes]] = []
        self._changed = asyncio.Condition()
        self._connections: dict[int, web.Request] = {}
        self._ended = asyncio.Event()

    async def put(self, resource: dict[str, Any]) -> None:
        key = (resource["metadata"]["namespace"], resource["metadata"]["name"])
        await self._event("MODIFIED" if key in self._objects else "ADDED", resource)
        self._objects[key] = resource

    async def delete(self, namespace: str, name: str) -> None:
        await self._event("DELETED", self._objects.pop((namespace, name)))

    async def bookmark(self) -> None:
        """Moves the version on, for whoever watches."""
        await self._event("BOOKMARK", {"kind": "AgentMemory", "metadata": {}})

    async def garble(self) -> None:
        """Tells the watches something that cannot be understood."""
        await self._event("ADDED", {"kind": "AgentMemory", "metadata": {"namespace": "team"}})

    def compact(self) -> None:
        """No version up to now can be continued from."""
        self._version += 1
        self._oldest = self._version

    def break_connections(self) -> None:
        """Cuts what is open, in the middle of a line."""
        for request in list(self._connections.values()):
            if request.transport is not None:
                request.transport.write(b'5\r\n{"typ\r\n')
                request.transport.abort()
        self._connections.clear()

    @property
    def watching(self) -> int:
        """How many watches stand."""
        return len(self._connections)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[StubKubeApi]:
        app = web.Application()
        app.router.add_get(f"{PATH}/agentmemories", self._get)
        app.router.add_get(f"{PATH}/namespaces/{{namespace}}/agentmemories", self._get)
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._ended.set()
            self.break_connections()
            await runner.cleanup()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ApiClient]:
        configuration = Configuration(host=self.url, api_key={"BearerToken": "bearer t0k3n"})
        async with ApiClient(configuration) as client:
            yield client

    async def _event(self, kind: str, body: dict[str, Any]) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
        async with self._changed:
            self._events.append((self._version, body["metadata"].get("namespace"), line))
            self._changed.notify_all()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.tokens.add(request.headers.get("Authorization", ""))
        namespace = request.match_info.get("namespace")
        if self.down:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.refuse:
            return self._status(self.refuse)
        if request.query.get("watch") == "true":
            return await self._watch(request, namespace, int(request.query["resourceVersion"]))
        self.lists.append(namespace)
        if self.hang:
            await self._ended.wait()
        items = [one for (space, _), one in self._objects.items() if namespace in (None, space)]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    def _status(self, code: int) -> web.Response:
        return web.json_response(
            {"kind": "Status", "code": code, "reason": "Expired" if code == 410 else "Other", "message": "why"},
            status=code,
        )

    async def _watch(self, request: web.Request, namespace: str | None, version: int) -> web.StreamResponse:
        self.watches.append((namespace, version))
        if version < self._oldest and not self.gone_as_event:
            return self._status(410)
        response = web.StreamResponse()
        await response.prepare(request)
        if version < self._oldest:
            body = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.write(json.dumps({"type": "ERROR", "object": body}).encode() + b"\n")
            return response
        if self.silent:
            return response
        self._connections[id(request)] = request
        try:
            await self._tell(response, namespace, version)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.pop(id(request), None)
        return response

    async def _tell(self, response: web.StreamResponse, namespace: str | None, version: int) -> None:
        while True:
            async with self._changed:
                news = [one for one in self._events if one[0] > version]
                if not news:
                    await self._changed.wait()
                    continue
            for number, space, line in news:
                version = number
                if namespace is None or space in (None, namespace):
                    await response.write(line)
