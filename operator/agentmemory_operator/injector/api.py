"""What the injector asks of the API server: the AgentMemories there are, and what changes among them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client.api_client import ApiClient

from agentmemory_operator.kube import AGENT_MEMORY, KubeError, Object

WATCH_SECONDS = 290
"""After this long the API server ends a watch; the next one continues where it ended."""
_SILENCE = 90.0
"""Seconds. A bookmark comes every minute: a connection that says less than that may be a dead one."""
_CONNECT = 5.0
_LIST = aiohttp.ClientTimeout(total=15.0, sock_connect=_CONNECT)


class Api(Protocol):
    """Every call raises KubeError; 410 means that the version is too old to continue from. `namespace` None: all."""

    async def list(self, namespace: str | None) -> tuple[list[Object], str]:
        """All AgentMemories, and the version of that state."""
        ...

    def watch(self, namespace: str | None, version: str) -> AsyncGenerator[Object | None]:
        """The events since `version`: first None, when the watch stands; ends where it can be continued."""
        ...


class ApiReader:
    """`Api` over the official asyncio client. `silence`: seconds after which a watch that says nothing is left."""

    def __init__(self, client: ApiClient, *, silence: float = _SILENCE) -> None:
        self._client = client
        self._watch_bounds = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=silence)

    async def list(self, namespace: str | None) -> tuple[list[Object], str]:
        async with self._get(namespace, {}, _LIST) as response:
            found = _parse(await response.read())
        return found["items"], found["metadata"]["resourceVersion"]

    async def watch(self, namespace: str | None, version: str) -> AsyncGenerator[Object | None]:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with self._get(namespace, query, self._watch_bounds) as response:
            yield None
            while line := await _next_line(response):
                event = _parse(line)
                if event["type"] == "ERROR":
                    raise _refusal(event["object"].get("code") or 0, event["object"])
                yield event

    @asynccontextmanager
    async def _get(
        self, namespace: str | None, query: Mapping[str, str], bounds: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that is closed at the end, whole or not. What goes wrong on the way becomes a KubeError."""
        path = AGENT_MEMORY.path(namespace)
        headers = {"Accept": "application/json"}
        url = self._client.configuration.host + path + ("?" + urlencode(query) if query else "")
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
            answer = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                "GET", url, headers=headers, _request_timeout=bounds
            )
            response = cast(aiohttp.ClientResponse, answer.response)
            try:
                if response.status != 200:
                    raise _refusal(response.status, _lenient(await response.read()))
                yield response
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, "Unreachable", f"the API server does not answer: {type(error).__name__}") from error


async def _next_line(response: aiohttp.ClientResponse) -> bytes:
    """A line, or nothing where the watch has ended or says nothing any more."""
    try:
        return await response.content.readline()
    except aiohttp.SocketTimeoutError:
        return b""


def _parse(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        # Of a watch that broke off, the last line may be half of one.
        raise KubeError(0, "Unreadable", "the API server's answer broke off") from error


def _lenient(text: bytes) -> Object:
    try:
        answer = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refusal(status: int, answer: Object) -> KubeError:
    return KubeError(status, answer.get("reason") or f"Status{status}", answer.get("message") or "no reason was given")
