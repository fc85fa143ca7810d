"""The injector as a process: its parts put together, started, and stopped on a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Mapping
from typing import Any

from kubernetes.aio.client.api_client import ApiClient

from agentmemory_operator.injector.admission import Admission
from agentmemory_operator.injector.api import Api, ApiReader
from agentmemory_operator.injector.certificates import ServingCertificate
from agentmemory_operator.injector.config import InjectorConfig, load_injector_config
from agentmemory_operator.injector.memories import Memories
from agentmemory_operator.injector.metrics import InjectorMetrics
from agentmemory_operator.injector.server import Ops, Webhook
from agentmemory_operator.kubeconfig import find_cluster
from agentmemory_operator.names import SYSTEM_NAMESPACE

logger = logging.getLogger(__name__)

LINGER = 5.0
"""Seconds that a stopping injector goes on answering: endpoints take a moment to change everywhere."""
LOOK_EVERY = 2.0
"""Seconds between two looks at the certificate's files."""


async def run(environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError, and OSError when an address is taken."""
    config = load_injector_config(environment)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ApiClient(await find_cluster()) as client:
        injector = Injector(config, ApiReader(client))
        await injector.start()
        try:
            await stop.wait()
            logger.info("stopping")
        finally:
            await injector.stop(linger=LINGER)


class Injector:
    """Serves from start to stop. The API server and the certificate may come later than it does."""

    def __init__(self, config: InjectorConfig, api: Api, *, look_every: float = LOOK_EVERY) -> None:
        self._config = config
        self._look_every = look_every
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        metrics = InjectorMetrics()
        self.memories = Memories(api, config.watch_namespaces)
        metrics.watch_cache(lambda: self.memories.age)
        self.certificate = ServingCertificate(
            config.certificates, on_load=metrics.certificate_loaded, on_failure=metrics.certificate_failed
        )
        admission = Admission(self.memories, config.image, metrics, excluded=(SYSTEM_NAMESPACE, config.namespace))
        self.webhook = Webhook(admission, self.certificate.context)
        self.ops = Ops(metrics, dead=self._dead, unready=self._unready)

    async def start(self) -> None:
        """Listen for the kubelet at once, and for the API server as soon as there is a certificate. Raises OSError."""
        await self.ops.start(self._config.host, self._config.ops_port)
        self._begin(self.memories.run(), "memories")
        self._begin(self.certificate.run(self._look_every), "certificate")
        self._begin(self._serve(), "webhook")

    async def stop(self, *, linger: float) -> None:
        """Be unready, answer for `linger` seconds more, close. Bounded: some seconds on top of that."""
        self._stopping = True
        await self.webhook.stop(linger=linger)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ops.stop()

    async def _serve(self) -> None:
        if not self.certificate.loaded.is_set():
            logger.info("waiting for a certificate in %s", self._config.certificates)
        await self.certificate.loaded.wait()
        await self.webhook.start(self._config.host, self._config.port)
        await asyncio.Event().wait()

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_complain)
        self._tasks.append(task)

    def _dead(self) -> list[str]:
        """Parts that have ended; only a restart brings them back."""
        return [] if self._stopping else [f"{task.get_name()} has ended" for task in self._tasks if task.done()]

    def _unready(self) -> list[str]:
        conditions = {
            "it is stopping": self._stopping,
            "there is no certificate yet": not self.certificate.loaded.is_set(),
            "the webhook does not listen yet": not self.webhook.port,
            "the AgentMemories have not been listed yet": not self.memories.synced,
        }
        return [reason for reason, holds in conditions.items() if holds] + self._dead()


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("%s has ended", task.get_name(), exc_info=task.exception())
