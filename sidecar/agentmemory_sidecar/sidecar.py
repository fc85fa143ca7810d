"""A sidecar that serves: the memory with its workers, and two listeners."""

from __future__ import annotations

import asyncio
import errno
import logging
import time

from aiohttp import web
from aiohttp.http import HttpProcessingError

from agentmemory_engine.memory import Memory
from agentmemory_sidecar.app import make_app
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.health import Health, make_ops_app
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.watch import LoginWatch

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
LOOPBACK_6 = "::1"
_SHARE_OF_REQUESTS = 0.25
"""How much of the time to stop the requests in progress may take; the rest is for the flush."""


class Sidecar:
    """Serves until stopped. The stores may be down: it listens all the same, and comes good when they return."""

    def __init__(self, config: Config, memory: Memory, metrics: Metrics) -> None:
        self._config = config
        self._memory = memory
        self._stopping = False
        self._health = Health(memory, metrics, lambda: self._stopping)
        api = make_app(memory, metrics, max_body=config.max_body, agents=config.agents, allow_whole=config.allow_whole)
        patience = config.stop_timeout * _SHARE_OF_REQUESTS
        self._api = web.AppRunner(
            api, access_log=None, handle_signals=False, shutdown_timeout=patience, logger=_server_logger()
        )
        self._ops = web.AppRunner(
            make_ops_app(self._health), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        self._watch = LoginWatch(
            config.credentials, memory.settings.stores, memory.renew_logins, interval=config.look_every
        )
        self._watching: asyncio.Task[None] | None = None
        self.port = 0
        self.ops_port = 0

    async def start(self) -> None:
        """Open the memory and listen. Raises OSError when an address is taken; then nothing is left open."""
        await self._memory.__aenter__()
        self._watching = asyncio.create_task(self._watch.run(), name="logins")
        try:
            await self._listen()
        except BaseException:
            await self.stop()
            raise

    async def _listen(self) -> None:
        await self._api.setup()
        self.port = await _bind(self._api, LOOPBACK, self._config.port)
        try:
            await _bind(self._api, LOOPBACK_6, self.port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and self._config.port:
                raise
            logger.info("not listening on [%s]: %s", LOOPBACK_6, error.strerror)
        # The last: who sees that it is alive may rely on the API, as a startup probe does.
        await self._ops.setup()
        self.ops_port = await _bind(self._ops, self._config.ops_host, self._config.ops_port)
        logger.info(
            "API on %s:%d, health and metrics on %s:%d", LOOPBACK, self.port, self._config.ops_host, self.ops_port
        )

    async def stop(self) -> None:
        """Finish the requests in progress, flush, give the shards back; all of it within the time to stop."""
        self._stopping = True
        deadline = time.monotonic() + self._config.stop_timeout
        await self._api.cleanup()
        await self._stop_watching()
        try:
            await self._memory.close(within=max(0.1, deadline - time.monotonic()))
        except Exception:
            logger.exception("the flush failed; the journal keeps what is pending")
        await self._health.close()
        await self._ops.cleanup()

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})


def _server_logger() -> logging.Logger:
    server = logging.getLogger("agentmemory_sidecar.server")
    server.addFilter(_is_no_fault_of_a_client)
    return server


def _is_no_fault_of_a_client(record: logging.LogRecord) -> bool:
    """What is not HTTP was answered with 400, and says nothing of how this program does."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


async def _bind(runner: web.AppRunner, host: str, port: int) -> int:
    """Listen, and answer on which port."""
    site = web.TCPSite(runner, host, port)
    await site.start()
    return int(runner.addresses[-1][1])
