"""The AgentMemories there are, by list and watch. What is known stays known while the API server is away."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.injector.api import Api
from agentmemory_operator.injector.decision import Known, Unreadable
from agentmemory_operator.kube import KubeError, Object
from agentmemory_operator.spec import read

logger = logging.getLogger(__name__)

_STEADY = 5.0
"""Seconds after which a watch that told nothing counts as one that worked."""


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Seconds between tries. They double from `first` to `longest`, and vary by half."""

    first: float = 0.2
    longest: float = 30.0

    def after(self, failures: int) -> float:
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 20)) * random.uniform(0.5, 1.0)


@dataclass
class _Scope:
    """One watch: a namespace's, or that of all."""

    namespace: str | None
    known: dict[tuple[str, str], Known] = field(default_factory=dict)
    version: str | None = None
    """Where a watch continues; None: only a list tells."""
    seen: float | None = None
    """When it was last known to be current, by the clock."""
    failures: int = 0
    complained: str = ""
    """Of what the log has already been told."""


class Memories:
    """The cache. `namespaces` empty: all of them are watched. `look_timeout` is in seconds."""

    def __init__(
        self,
        api: Api,
        namespaces: Sequence[str] = (),
        *,
        pauses: Pauses | None = None,
        look_timeout: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._scopes = {namespace: _Scope(namespace) for namespace in (namespaces or (None,))}
        self._pauses = pauses or Pauses()
        self._look_timeout = look_timeout
        self._clock = clock

    @property
    def synced(self) -> bool:
        """Whether everything that is watched has been listed once."""
        return all(scope.seen is not None for scope in self._scopes.values())

    @property
    def age(self) -> float:
        """Seconds since all of it was last known to be current; infinite before the first list."""
        seen = [scope.seen for scope in self._scopes.values()]
        return max(float("inf") if one is None else max(0.0, self._clock() - one) for one in seen)

    def watches(self, namespace: str) -> bool:
        """Whether this namespace is one that is to be known."""
        return self._scope(namespace) is not None

    def known(self, namespace: str) -> dict[str, Known]:
        """The AgentMemories of a namespace by name, as far as they are known."""
        scope = self._scope(namespace)
        known = scope.known if scope is not None else {}
        return {name: one for (space, name), one in known.items() if space == namespace}

    async def look(self, namespace: str) -> dict[str, Known]:
        """Ask the API server itself, for a pod that is made right after its AgentMemory; bounded, and when there is no
        answer, what is known."""
        try:
            async with asyncio.timeout(self._look_timeout):
                items, _ = await self._api.list(namespace)
        except (KubeError, TimeoutError) as error:
            logger.warning("no answer to a direct look at %s: %s", namespace, str(error) or "timed out")
            return self.known(namespace)
        return {name: one for (_, name), one in _read_all(items).items()}

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for scope in self._scopes.values():
                tasks.create_task(self._follow(scope), name=f"watch-{scope.namespace or 'all'}")

    def _scope(self, namespace: str) -> _Scope | None:
        return self._scopes.get(None) or self._scopes.get(namespace)

    async def _follow(self, scope: _Scope) -> None:
        while True:
            try:
                if scope.version is None:
                    await self._list(scope)
                await self._watch(scope)
            except KubeError as error:
                if error.status == 410:
                    scope.version = None
                self._failed(scope, f"{error.reason}: {error}")
            except Exception:
                logger.exception("an event of the watch was not understood; listing anew")
                scope.version = None
                self._failed(scope, "not understood")
            if scope.failures:
                await asyncio.sleep(self._pauses.after(scope.failures))

    def _failed(self, scope: _Scope, why: str) -> None:
        scope.failures += 1
        if scope.complained != why:
            scope.complained = why
            logger.warning("the AgentMemories of %s may be out of date: %s", scope.namespace or "all namespaces", why)

    def _succeeded(self, scope: _Scope) -> None:
        scope.failures = 0
        if scope.complained:
            scope.complained = ""
            logger.info("the AgentMemories of %s are current again", scope.namespace or "all namespaces")

    async def _list(self, scope: _Scope) -> None:
        items, scope.version = await self._api.list(scope.namespace)
        scope.known = _read_all(items)
        scope.seen = self._clock()

    async def _watch(self, scope: _Scope) -> None:
        """Take what one watch tells. One that ends at once and told nothing counts as a failure, lest it be asked
        without end."""
        assert scope.version is not None
        started = self._clock()
        told = False
        async with aclosing(self._api.watch(scope.namespace, scope.version)) as events:
            async for event in events:
                scope.seen = self._clock()
                if event is not None:
                    told = True
                    self._take(scope, event)
                    self._succeeded(scope)
        if told or self._clock() - started >= _STEADY:
            self._succeeded(scope)
        else:
            scope.failures += 1

    def _take(self, scope: _Scope, event: Object) -> None:
        body = event["object"]
        kind = event["type"]
        if kind in ("ADDED", "MODIFIED"):
            scope.known |= _read_all([body])
        elif kind == "DELETED":
            scope.known.pop(_key(body), None)
        # Last: an event that was not understood is not passed over.
        scope.version = body["metadata"]["resourceVersion"]


def _read_all(items: Sequence[Object]) -> dict[tuple[str, str], Known]:
    return {_key(item): _read(item) for item in items}


def _read(body: Mapping[str, object]) -> Known:
    try:
        return read(body)
    except InvalidSpec as error:
        return Unreadable(_key(body)[1], str(error))


def _key(body: Mapping[str, object]) -> tuple[str, str]:
    metadata = body["metadata"]
    assert isinstance(metadata, dict)
    return metadata["namespace"], metadata["name"]
