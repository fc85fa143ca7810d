"""Calls below one agent's address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from agentmemory.encoding import encode
from agentmemory.transport import Answer, Request, Transport


class Calls:
    """Sends what one agent's parts ask; `base` is the percent-encoded path of the agent."""

    def __init__(self, transport: Transport, base: str) -> None:
        self._transport = transport
        self._base = base

    async def get(self, path: str, query: Mapping[str, Any] | None = None) -> Answer:
        """A read; members of the query that are None are left out."""
        return await self._transport.send(Request(method="GET", path=f"{self._base}{path}{query_string(query or {})}"))

    async def send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """A request with a JSON body, where there is one; `key` is its idempotency key."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else encode(body)
        return await self._transport.send(
            Request(method=method, path=self._base + path, body=data, headers=headers, key=key)
        )


def query_string(query: Mapping[str, Any]) -> str:
    """What stands behind the path: nothing, or a question mark and the parameters that are given."""
    text = urlencode(given(query), doseq=True)
    return text and "?" + text


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not None."""
    return {name: value for name, value in values.items() if value is not None}
