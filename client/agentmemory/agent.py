"""One agent's memory."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from agentmemory.calls import given as _given
from agentmemory.encoding import encode, timestamp
from agentmemory.errors import UnexpectedAnswer
from agentmemory.knowledge import Knowledge
from agentmemory.models import (
    Event,
    Hydration,
    NewEvent,
    Recalled,
    Receipt,
    RecentMessages,
    Selection,
    TimelinePage,
    WorkingMemory,
)
from agentmemory.sessions import Sessions
from agentmemory.timelines import Moment, each_event, timeline_query
from agentmemory.transport import Answer, Request, Transport
from agentmemory.whole import WholeAgent

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


class Agent(WholeAgent):
    """What one agent records and remembers. Made by `AgentMemory.agent`.

    Every call raises the errors of `agentmemory.errors`: Unreachable, UnexpectedAnswer, or the ProblemError that the
    sidecar answers. Every write takes an `idempotency_key`, and makes one up where none is given: a write that is
    repeated with its key happens once.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        if not name[:1].isalnum():
            raise ValueError(f"{name!r} cannot name an agent: a name begins with a letter or a digit.")
        super().__init__(transport, name)
        self.sessions = Sessions(self._calls)
        self.knowledge = Knowledge(self._calls)

    async def record(
        self,
        events: Sequence[NewEvent | Mapping[str, Any]] = (),
        *,
        session: str | None = None,
        set: Mapping[str, Any] | None = None,
        merge: Mapping[str, Any] | None = None,
        patch: Sequence[Mapping[str, Any]] | None = None,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """One atomic turn: events, and at most one change of the working-memory document.

        An event given as a mapping has the members of NewEvent; its `at` may be an RFC 3339 text.
        `set` replaces the document, `merge` is a JSON Merge Patch (RFC 7396), `patch` a JSON Patch (RFC 6902).

        Raises:
            ValueError: more than one change, or a value that JSON cannot carry.
            VersionConflict: the document's version is not `if_match`; nothing was recorded.
        """
        turn: dict[str, Any] = {"events": _plain(events, stamp=idempotency_key is None)}
        if session is not None:
            turn["session"] = session
        if change := _one_change(set=set, merge=merge, patch=patch):
            turn["working_memory"] = change
        return await self._write("POST", "/turns", turn, if_match=if_match, key=idempotency_key)

    async def say(
        self,
        content: str,
        *,
        role: str = "user",
        session: str | None = None,
        at: Moment | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Record one message."""
        event = {"type": "message", "role": role, "content": content, "at": at, "metadata": metadata}
        return await self.record([event], session=session, idempotency_key=idempotency_key)

    async def working_memory(self, *, version: str | None = None) -> WorkingMemory:
        """The document as it is, or the snapshot of a `version`.

        Raises:
            NoWorkingMemory: there is none yet.
            Expired: it was not used for longer than its TTL; the error names the snapshot that is kept.
            NoSnapshot: no snapshot of that version is kept.
        """
        answer = await self._get("/working-memory", {"version": version})
        return WorkingMemory(answer.decode(dict[str, Any]), version or _version(answer))

    async def select(self, path: str, *, version: str | None = None) -> Selection:
        """The parts of the document, or of the snapshot of a `version`, that a JSONPath (RFC 9535) leads to.

        Raises:
            InvalidRequest: it is no path, or costs more than the sidecar allows.
            NoWorkingMemory, Expired, NoSnapshot: as `working_memory`.
        """
        return (await self._get("/working-memory", {"path": path, "version": version})).decode(Selection)

    async def put(
        self, document: Mapping[str, Any], *, if_match: str | None = None, idempotency_key: str | None = None
    ) -> Receipt:
        """Replace the document. `if_match` is the version it must have."""
        return await self._write("PUT", "/working-memory", document, if_match=if_match, key=idempotency_key)

    async def patch(
        self,
        change: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Change the document: a mapping is a JSON Merge Patch (RFC 7396), a sequence a JSON Patch (RFC 6902)."""
        kind = MERGE_PATCH if isinstance(change, Mapping) else JSON_PATCH
        return await self._write(
            "PATCH", "/working-memory", change, if_match=if_match, key=idempotency_key, content_type=kind
        )

    async def delete(self, *, if_match: str | None = None, idempotency_key: str | None = None) -> Receipt:
        """Delete the document; what happened stays in the timeline.

        Raises:
            NotFound: there is none.
        """
        return await self._write("DELETE", "/working-memory", None, if_match=if_match, key=idempotency_key)

    async def messages(self, *, limit: int = 50) -> RecentMessages:
        """The window of recent messages, oldest first."""
        return (await self._get("/messages", {"limit": limit})).decode(RecentMessages)

    async def timeline_page(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        types: Sequence[str] = (),
        session: str | None = None,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        order: Literal["asc", "desc"] = "asc",
        limit: int = 100,
        cursor: str | None = None,
    ) -> TimelinePage:
        """One page of what happened; `cursor`, from the page before, continues it with the same filters and order.

        `metadata` is contained in the events' own.
        """
        query = timeline_query(
            since=since, until=until, types=types, session=session, role=role, metadata=metadata, order=order,
            limit=limit, cursor=cursor,
        )  # fmt: skip
        return (await self._get("/events", query)).decode(TimelinePage)

    async def timeline(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        types: Sequence[str] = (),
        session: str | None = None,
        role: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 500,
        allow_degraded: bool = False,
    ) -> AsyncIterator[Event]:
        """All that happened, page by page.

        Raises:
            DegradedAnswer: a store does not answer, so that events are missing; not with `allow_degraded`.
        """

        async def read(cursor: str | None) -> TimelinePage:
            return await self.timeline_page(
                since=since, until=until, types=types, session=session, role=role, metadata=metadata, order=order,
                limit=page_size, cursor=cursor,
            )  # fmt: skip

        async for event in each_event(read, allow_degraded=allow_degraded):
            yield event

    async def recall(
        self,
        query: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        k: int = 5,
        strategy: Literal["hybrid", "semantic", "keyword"] | None = None,
        types: Sequence[str] = (),
        session: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        metadata: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        recency: tuple[str, float] | None = None,
        diversity: float | None = None,
        named_times: bool | None = None,
        time_zone: str | None = None,
        include: Sequence[Literal["events", "knowledge"]] = (),
    ) -> Recalled:
        """The `k` best matches for a text or a vector, best first, among what the filters let through.

        `include` says what is searched: events unless given; with `knowledge`, facts stand among the hits. A filter
        holds for them as well: metadata is theirs, the times are of when they were believed, and none passes `types`
        or `session`.

        `strategy` is hybrid for a text and semantic for a vector unless given. `recency` is a half-life (`7d`) and a
        weight from 0 to 1; `diversity`, from 0 to 1, puts back what repeats an earlier hit. A time that a hybrid query
        names ("last Tuesday"), in `time_zone`, counts unless `named_times` is False.

        Raises:
            RecallUnavailable: no embedding can be made of the query.
        """
        filters = {
            "types": list(types) or None,
            "session": session,
            "since": since and timestamp(since),
            "until": until and timestamp(until),
            "metadata": metadata,
        }
        question = {
            "query": query,
            "vector": vector,
            "k": k,
            "strategy": strategy,
            "filter": _given(filters) or None,
            "min_score": min_score,
            "recency": recency and {"half_life": recency[0], "weight": recency[1]},
            "diversity": diversity,
            "named_times": named_times,
            "time_zone": time_zone,
            "include": list(include) or None,
        }
        return (await self._post("/recall", _given(question))).decode(Recalled)

    async def hydrate(
        self, query: str | None = None, *, tokens: int = 2000, restore: bool = False, k: int | None = None
    ) -> Hydration:
        """The context to wake up with: working memory, recent messages and what is recalled for `query`.

        `restore` brings back an expired document, or one that could not be read, from its last snapshot that can be.
        """
        wish = {"query": query, "budget": {"tokens": tokens}, "restore": restore, "k": k}
        return (await self._post("/hydrate", _given(wish))).decode(Hydration)

    async def _get(self, path: str, query: Mapping[str, Any]) -> Answer:
        return await self._calls.get(path, query)

    async def _post(self, path: str, body: Any) -> Answer:
        return await self._calls.send("POST", path, body)

    async def _write(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        if_match: str | None,
        key: str | None,
        content_type: str = "application/json",
    ) -> Receipt:
        headers = {} if body is None else {"Content-Type": content_type}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        request = Request(
            method=method,
            path=self._base + path,
            body=None if body is None else encode(body),
            headers=headers,
            key=key or uuid.uuid4().hex,
        )
        receipt = (await self._transport.send(request)).decode(Receipt)
        return msgspec.structs.replace(receipt, agent=self.name)


def _plain(events: Sequence[NewEvent | Mapping[str, Any]], *, stamp: bool) -> list[dict[str, Any]]:
    """The events as they are sent. `stamp` gives the present time to those that say none.

    Under a key of the caller's own they get none: called again with that key, the body has to be the same.
    """
    now = datetime.now(UTC) if stamp else None
    plain = [msgspec.structs.asdict(event) if isinstance(event, NewEvent) else dict(event) for event in events]
    return [_given({**event, "at": _time(event.get("at") or now)}) for event in plain]


def _time(at: Moment | None) -> str | None:
    return None if at is None else timestamp(at)


def _one_change(**changes: Any) -> dict[str, Any]:
    given = _given(changes)
    if len(given) > 1:
        raise ValueError(f"A turn changes the document in one way, not by {' and '.join(given)}.")
    return given


def _version(answer: Answer) -> str:
    etag = answer.headers.get("ETag")
    if etag is None:
        raise UnexpectedAnswer("The sidecar sent a document without its version.")
    return etag.strip('"')
