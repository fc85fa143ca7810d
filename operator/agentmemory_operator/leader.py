"""One leader among the replicas, by a Lease; the others wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agentmemory_operator.kube import LEASE, Kube, KubeError, Object

logger = logging.getLogger(__name__)

DURATION = 15.0
"""Seconds after which a silent leader is replaced."""
DEADLINE = 10.0
"""Seconds after which a leader that cannot renew stops: sooner than anyone replaces it."""
PERIOD = 2.0
"""Seconds between two tries to become or stay leader."""


class LostLease(Exception):
    """Another replica leads, or may; the process has to end."""


class Leader:
    """The Lease `name` in `namespace`, contended for as `identity`. Times are of this process's own clock: how long
    another's record has stood unchanged counts, never what time it names."""

    def __init__(
        self, kube: Kube, *, namespace: str, name: str, identity: str,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._sleep = sleep
        self._seen: Any = None
        self._seen_at = 0.0
        self._complaint = ""

    async def acquire(self) -> None:
        """Return when this process leads."""
        while not await self._try():
            await self._sleep(PERIOD)
        logger.info("%s leads", self._identity)

    async def hold(self) -> None:
        """Renew until that fails for too long. Raises LostLease."""
        renewed = self._clock()
        while True:
            await self._sleep(PERIOD)
            # Others count from when they see a renewal, which may be long before its answer comes here, if it does.
            asked = self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(renewed + DEADLINE - asked):
                    if await self._try():
                        renewed = asked
            if self._clock() - renewed >= DEADLINE:
                raise LostLease(f"{self._identity} could not renew the Lease {self._name}")

    async def release(self) -> None:
        """Let another one lead at once, when this one ends in good order."""
        with suppress(KubeError):
            lease = await self._kube.get(LEASE, self._namespace, self._name)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, {"holderIdentity": ""})

    async def _try(self) -> bool:
        try:
            lease = await self._kube.get(LEASE, self._namespace, self._name)
            if lease is None:
                await self._kube.create(self._manifest())
                return True
            if not self._may_take(lease):
                return False
            await self._write(lease, self._record(lease))
        except KubeError as error:
            if not error.passing or error.status == 0:
                self._complain(str(error))
            return False
        self._complaint = ""
        return True

    def _complain(self, what: str) -> None:
        """Say once what stands in the way, not every other second."""
        if what != self._complaint:
            logger.warning("the Lease %s cannot be had: %s", self._name, what)
        self._complaint = what

    def _may_take(self, lease: Object) -> bool:
        holder = lease["spec"].get("holderIdentity")
        if holder in (self._identity, "", None):
            return True
        record = (holder, lease["spec"].get("renewTime"))
        if record != self._seen:
            self._seen, self._seen_at = record, self._clock()
        return self._clock() - self._seen_at > float(lease["spec"].get("leaseDurationSeconds") or DURATION)

    async def _write(self, lease: Object, spec: Object) -> None:
        version = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        await self._kube.patch(LEASE, self._namespace, self._name, {"metadata": version, "spec": spec})

    def _record(self, lease: Object | None = None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record: Object = {
            "holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": now,
        }  # fmt: skip
        before = lease["spec"] if lease else {}
        if before.get("holderIdentity") != self._identity:
            record |= {"acquireTime": now, "leaseTransitions": int(before.get("leaseTransitions") or 0) + 1}
        return record

    def _manifest(self) -> Object:
        metadata = {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": metadata, "spec": self._record(),
        }  # fmt: skip
