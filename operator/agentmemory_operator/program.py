"""The operator as a process: waits to lead, then watches and reconciles until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import kopf
from kubernetes.aio.client.api_client import ApiClient

from agentmemory_operator import strays, webhook
from agentmemory_operator.config import Config, load_config
from agentmemory_operator.controller import Controller
from agentmemory_operator.handlers import make_registry, make_settings
from agentmemory_operator.kube import AGENT_MEMORY, Kube, KubeClient, KubeError
from agentmemory_operator.kubeconfig import find_cluster
from agentmemory_operator.leader import Leader
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.ops import Ops

logger = logging.getLogger(__name__)

_STALE = 5
"""So many resyncs without a list of all AgentMemories, and the process is taken for stuck."""


async def run(environment: Mapping[str, str]) -> None:
    """Operate until SIGTERM or SIGINT. Raises ConfigError, LostLease, and OSError when a port is taken."""
    config = load_config(environment)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ApiClient(await find_cluster()) as api:
        await Program(KubeClient(api), config).run(stop)


class Program:
    """The parts of one replica."""

    def __init__(self, kube: Kube, config: Config) -> None:
        self._kube = kube
        self._config = config
        self._metrics = Metrics()
        self._controller = Controller(kube, config, self._metrics)
        self._leader = Leader(kube, namespace=config.namespace, name=config.lease_name, identity=config.pod)
        self._ops = Ops(self._metrics, self._sick)
        self._leads_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Lead when it can, and operate, until `stop` is set. Raises LostLease."""
        await self._ops.start(self._config.ops_port)
        try:
            if not await _unless(stop, self._leader.acquire()):
                return
            self._metrics.leader.set(1)
            self._leads_since = time.monotonic()
            try:
                await self._operate(stop)
            finally:
                await self._leader.release()
        finally:
            await self._ops.stop()

    async def _operate(self, stop: asyncio.Event) -> None:
        """All that the leader does; the end of one part is the end of all."""
        parts: list[Coroutine[Any, Any, Any]] = [
            self._leader.hold(),
            self._controller.run(),
            strays.run(self._kube, self._config, self._metrics),
            self._watch(stop),
        ]
        if self._config.webhook_configuration:
            parts.append(webhook.run(self._kube, self._config))
        tasks = [asyncio.create_task(part) for part in parts]
        # Kopf takes over the signals: its end is the end of all.
        done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping")
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for task in done:
            task.result()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Have Kopf tell of changes until it is told to stop.

        It ends with an error where it may not watch, and then ends every task of the process: so does the process, and
        the next one leaves such a namespace out.
        """
        # Else Kopf asks for the name of its user, and an image's user need not have one.
        identity: Any = self._config.pod
        namespaces = await find_watchable(self._kube, self._config.watch_namespaces)
        await kopf.operator(
            registry=make_registry(self._controller.nudge), settings=make_settings(), standalone=True,
            identity=identity, clusterwide=not namespaces, namespaces=namespaces, stop_flag=stop,
        )  # fmt: skip

    def _sick(self) -> list[str]:
        if self._leads_since is None:
            return []
        since = self._controller.last_listed or self._leads_since
        stale = time.monotonic() - since > _STALE * self._config.resync
        return ["AgentMemories have not been listed for too long"] if stale else []


async def find_watchable(kube: Kube, namespaces: Sequence[str]) -> list[str]:
    """Those of these namespaces that may be watched now; none for none.

    Raises KubeError when it is none of some, or the API server does not answer.
    """
    found = []
    refused: KubeError | None = None
    for namespace in namespaces:
        try:
            await kube.list(AGENT_MEMORY, namespace)
            found.append(namespace)
        except KubeError as error:
            if error.passing:
                raise
            refused = error
            logger.warning("%s cannot be watched: %s", namespace, error)
    if refused is not None and not found:
        raise refused
    return found


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before the stop."""
    tasks = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return not stop.is_set()
