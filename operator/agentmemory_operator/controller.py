"""The controller: one task an AgentMemory, which reconciles it now and then, and at once when something happens."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from agentmemory_operator import conditions, events, finalize, status
from agentmemory_operator.conditions import Condition
from agentmemory_operator.config import Config
from agentmemory_operator.errors import InvalidSpec, Waiting
from agentmemory_operator.kube import AGENT_MEMORY, Kube, KubeError, Object
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.reconcile import reconcile
from agentmemory_operator.spec import read
from agentmemory_operator.work import Memo, Work, stamp

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""

_AT_ONCE = 8
_SLOW = 3.0
"""Seconds after which a look was slow: mostly, stores do not answer."""
_GAP = 0.5
"""Seconds between two looks at the same memory at least: events come in bursts."""
_FIRST_PAUSE = 2.0
_BLIND = 3
"""Looks in a row without an answer of the API server after which figures are no longer shown: no alert is to rest on
them."""
_JITTER = 0.1


class Controller:
    """Reconciles what it is nudged about. `run` ends when cancelled."""

    def __init__(
        self, kube: Kube, config: Config, metrics: Metrics, *,
        reconcile: Callable[[Work], Awaitable[bool]] = reconcile,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._kube = kube
        self._config = config
        self._metrics = metrics
        self._reconcile = reconcile
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._slow_turns = asyncio.Semaphore(_AT_ONCE)
        self._slow: set[Key] = set()
        """Memories whose last look was slow: they wait for one another, and nobody else for them."""
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._nudges: dict[Key, asyncio.Event] = {}
        self._memos: dict[Key, Memo] = {}
        self._failures: dict[Key, int] = {}
        self._unanswered: dict[Key, int] = {}
        self.last_listed: float | None = None
        """When the API server last answered for all namespaces, be it by a refusal (monotonic seconds)."""

    @property
    def tended(self) -> list[Key]:
        """The memories that are looked after now."""
        return list(self._tasks)

    async def run(self) -> None:
        """List all AgentMemories again and again: what a broken watch did not tell is found all the same."""
        try:
            while True:
                await self.list_all()
                await asyncio.sleep(self._config.resync)
        finally:
            for task in self._tasks.values():
                task.cancel()
            for memo in self._memos.values():
                memo.stop()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def list_all(self) -> None:
        """Begin to tend every AgentMemory there is. Where a namespace is gone, and with it the right to list in it, the
        others are tended all the same."""
        answered = True
        for namespace in self._config.watch_namespaces or (None,):
            try:
                found = await self._kube.list(AGENT_MEMORY, namespace)
            except KubeError as error:
                logger.warning("AgentMemories cannot be listed: %s", error)
                answered = answered and not error.passing
                continue
            for one in found:
                key = (one["metadata"]["namespace"], one["metadata"]["name"])
                if key not in self._tasks:
                    self.nudge(key)
        if answered:
            self.last_listed = time.monotonic()

    def nudge(self, key: Key) -> None:
        """Look at this memory now; one that does not exist any more is forgotten."""
        self._nudges.setdefault(key, asyncio.Event()).set()
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._tend(key), name=f"memory {key[0]}/{key[1]}")

    async def _tend(self, key: Key) -> None:
        nudged = self._nudges[key]
        while True:
            nudged.clear()
            async with self._slow_turns if key in self._slow else self._turns:
                pause = await self.look(key)
            if pause is None and not nudged.is_set():
                self._forget(key)
                return
            await asyncio.sleep(_GAP)
            try:
                async with asyncio.timeout(pause):
                    await nudged.wait()
            except TimeoutError:
                continue

    def _forget(self, key: Key) -> None:
        if key in self._memos:
            self._memos[key].stop()
        for kept in (self._tasks, self._nudges, self._memos, self._failures, self._unanswered):
            kept.pop(key, None)
        self._slow.discard(key)
        self._metrics.forget(*key)

    async def look(self, key: Key) -> float | None:
        """Reconcile once; answer the seconds until the next time, None when the memory is gone."""
        started = time.perf_counter()
        result = "ok"
        try:
            pause = await self.reconcile_once(key)
        except KubeError as error:
            result, pause = "retried", self._backoff(key)
            self._unanswered[key] = self._unanswered.get(key, 0) + 1
            if self._unanswered[key] >= _BLIND:
                self._metrics.forget(*key)
            logger.warning("%s/%s: %s; trying again in %.0f s", *key, error, pause)
        except Waiting as fault:
            result, pause = "retried", _FIRST_PAUSE
            logger.info("%s/%s: %s", *key, fault)
        except Exception:
            result, pause = "failed", self._backoff(key)
            logger.exception("%s/%s: the reconciliation failed; trying again in %.0f s", *key, pause)
        took = time.perf_counter() - started
        self._metrics.reconciled(result, took)
        (self._slow.add if took > _SLOW else self._slow.discard)(key)
        return pause

    def _backoff(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(self._config.resync, _FIRST_PAUSE * 2.0 ** min(failures - 1, 16))

    async def reconcile_once(self, key: Key) -> float | None:
        """Look at one memory; answer the seconds until the next look, None when it is gone.

        Raises KubeError and Waiting, and whatever a step raised that none should.
        """
        body = await self._kube.get(AGENT_MEMORY, *key)
        if body is None:
            return None
        try:
            memory = read(body)
        except InvalidSpec as fault:
            await self._say_invalid(body, fault)
            return self._config.resync
        work = Work(memory, self._kube, self._config, self._memos.setdefault(key, Memo()), clock=self._clock)
        if memory.deleting:
            done = await finalize.finalize(work)
            return None if done else self._backoff(key)
        await finalize.keep_finalizer(work)
        blocked = await self._reconcile(work)
        await self._write(work)
        self._metrics.observed(work)
        self._unanswered.pop(key, None)
        if work.defect is not None:
            raise work.defect
        if not blocked:
            self._failures.pop(key, None)
        usual = self._backoff(key) if blocked else self._config.resync * (1 + random.uniform(-_JITTER, _JITTER))
        return usual if work.again is None else min(usual, work.again)

    async def _write(self, work: Work) -> None:
        """The status, where it is another one; Events, for what changed."""
        memory, patch = work.memory, status.compose(work)
        old = memory.raw.get("status") or {}
        if not status.differs(old, patch):
            return
        # Of the very version that was looked at: another of this name may stand there by now.
        body = {"metadata": {"resourceVersion": work.version}, "status": patch}
        await self._kube.patch(AGENT_MEMORY, memory.namespace, memory.name, body, "status")
        changed = conditions.transitions(old.get("conditions", []), work.found.values())
        for one in changed:
            logger.info("%s/%s: %s is %s, %s: %s", memory.namespace, memory.name, one.type, one.status, one.reason,
                        one.message)  # fmt: skip
        for event in events.of_transitions(memory.raw, changed, instance=self._config.pod, now=self._clock()):
            await events.tell(self._kube, event)

    async def _say_invalid(self, body: Object, fault: InvalidSpec) -> None:
        """A resource that was stored under another CRD and cannot be read; what runs is left alone."""
        metadata, old = body["metadata"], body.get("status") or {}
        generation = metadata.get("generation", 0)
        said = f"{fault} What runs is left as it is."
        if metadata.get("deletionTimestamp"):
            said = f"{fault} It is deleted once its spec can be read: what deletionPolicy asks for has to be known."
        ready = Condition(conditions.READY, "False", fault.reason, said)
        patch = {
            "observedGeneration": generation,
            "phase": "Degraded",
            "conditions": conditions.merge(
                old.get("conditions", []), [ready], generation=generation, now=stamp(self._clock())
            ),
        }
        if status.differs(old, patch):
            await self._kube.patch(AGENT_MEMORY, metadata["namespace"], metadata["name"], {"status": patch}, "status")
