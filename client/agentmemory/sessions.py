"""An agent's sessions."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from agentmemory.calls import Calls, given
from agentmemory.distillations import Distillation
from agentmemory.errors import DegradedAnswer


class Session(Struct, kw_only=True):
    """A session. `last_event_at` is None before its first event, `ended_at` while it is open."""

    id: str
    started_at: datetime
    last_event_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: dict[str, Any] | None = None


class SessionPage(Struct, kw_only=True):
    """Sessions, newest first; `cursor` continues it and is None at the end. `degraded` names what was not asked."""

    sessions: list[Session]
    cursor: str | None = None
    degraded: list[str] = []


class Sessions:
    """Starts, lists and ends sessions. Made by `Agent.sessions`.

    A turn that names a session starts it as well. Every call raises the errors of `agentmemory.errors`.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def start(
        self,
        id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Start a session; without an `id` one is made.

        One that is there already is answered, with the metadata merged into its own; one that has ended stays so.
        """
        body = given({"id": id, "metadata": metadata})
        answer = await self._calls.send("POST", "/sessions", body, key=idempotency_key or uuid.uuid4().hex)
        return answer.decode(Session)

    async def get(self, id: str) -> Session:
        """One session.

        Raises:
            NoSession: nobody started it, and no turn has named it.
        """
        return (await self._calls.get(_path(id))).decode(Session)

    async def end(self, id: str) -> Session:
        """End it; harmless when it has ended.

        Raises:
            NoSession: there is none of that id.
        """
        return await self._change(id, {"ended": True})

    async def reopen(self, id: str) -> Session:
        """Have it not ended after all.

        Raises:
            NoSession: there is none of that id.
        """
        return await self._change(id, {"ended": False})

    async def describe(self, id: str, metadata: Mapping[str, Any] | None) -> Session:
        """Change its metadata by a JSON Merge Patch (RFC 7396); None removes all of it.

        Raises:
            NoSession: there is none of that id.
        """
        return await self._change(id, {"metadata": metadata})

    async def distill(self, id: str) -> Distillation:
        """Have facts drawn from all of a session, ended or not, whatever was drawn or given up before; not waited for.

        What was drawn before and is not drawn again is believed no longer, once it is done.

        Raises:
            NoSession: there is none of that id.
            DistillationOff: `spec.distillation` is not given.
        """
        return (await self._calls.send("POST", f"{_path(id)}/distillation")).decode(Distillation)

    async def forget_distillation(self, id: str) -> None:
        """Draw nothing more from it; what was drawn stays.

        Raises:
            NoDistillation: nothing is asked for of it.
        """
        await self._calls.send("DELETE", f"{_path(id)}/distillation")

    async def page(
        self,
        *,
        ended: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """One page of sessions, newest first; `metadata` is contained in theirs.

        `cursor`, from the page before, continues it with the same filters.
        """
        query = {
            "ended": None if ended is None else str(ended).lower(),
            "metadata": None if metadata is None else json.dumps(metadata),
            "limit": limit,
            "cursor": cursor,
        }
        return (await self._calls.get("/sessions", query)).decode(SessionPage)

    async def list(
        self,
        *,
        ended: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        page_size: int = 100,
        allow_degraded: bool = False,
    ) -> AsyncIterator[Session]:
        """All sessions, newest first, page by page.

        Raises:
            DegradedAnswer: Redis does not answer, so that those that only unflushed turns have named are missing; not
                with `allow_degraded`.
        """
        cursor: str | None = None
        while True:
            page = await self.page(ended=ended, metadata=metadata, limit=page_size, cursor=cursor)
            if page.degraded and not allow_degraded:
                raise DegradedAnswer(page.degraded)
            for session in page.sessions:
                yield session
            cursor = page.cursor
            if cursor is None:
                return

    async def _change(self, id: str, change: Mapping[str, Any]) -> Session:
        return (await self._calls.send("PATCH", _path(id), change)).decode(Session)


def _path(id: str) -> str:
    """A path with dots alone would be taken for a step up, so that they are escaped."""
    return f"/sessions/{quote(id, safe='').replace('.', '%2E')}"
