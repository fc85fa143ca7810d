"""Looks at the mounted logins, and lets the memory move to new ones. The content is compared: a volume of Kubernetes is
replaced by links, of which file events say little."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agentmemory_engine.complaints import Complaints
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.redis import Credentials
from agentmemory_sidecar.credentials import CredentialFiles

logger = logging.getLogger(__name__)
INTERVAL = 2.0
_LONGEST_PAUSE = 60.0

Renew = Callable[[], Awaitable[Mapping[str, str]]]
"""Moves to the logins in the files; answers, by store, why it stayed with the one before."""


class LoginWatch:
    """Looks every `interval` seconds. A login that is refused is tried again, after growing pauses."""

    def __init__(
        self, files: CredentialFiles, stores: Sequence[str], renew: Renew, *, interval: float = INTERVAL
    ) -> None:
        self._files = files
        self._stores = stores
        self._renew = renew
        self._interval = interval
        self._seen: list[Credentials | str] = []
        self._pause = interval
        self._due: float | None = None
        self._complaints = Complaints(logger, "the login before goes on")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:
                logger.exception("the logins could not be looked at")
            await asyncio.sleep(self._interval)

    async def _look(self) -> None:
        held = [self._held(store) for store in self._stores]
        now = time.monotonic()
        if held != self._seen:
            self._seen, self._pause, self._due = held, self._interval, now
        if self._due is None or now < self._due:
            return
        reasons = await self._renew()
        for reason in reasons.values():
            self._complaints.say(reason)
        if not reasons:
            self._complaints.end()
        self._due = time.monotonic() + self._pause if reasons else None
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _held(self, store: str) -> Credentials | str:
        try:
            return self._files.login(store)()
        except StoreUnavailable as error:
            return str(error)
