"""The second listener: health and metrics, for the kubelet and Prometheus."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from agentmemory_engine.answers import Status
from agentmemory_engine.memory import Memory
from agentmemory_sidecar.latest import Latest
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.operations import JSON


class Health:
    """`/healthz`, `/readyz` and `/metrics` of one sidecar."""

    def __init__(self, memory: Memory, metrics: Metrics, is_stopping: Callable[[], bool]) -> None:
        self._memory = memory
        self._metrics = metrics
        self._is_stopping = is_stopping
        self._status: Latest[Status] = Latest(memory.status)
        self._check: Latest[dict[str, str]] = Latest(memory.check, fresh=0.2)

    async def close(self) -> None:
        await self._status.close()
        await self._check.close()

    async def alive(self, _: web.Request) -> web.Response:
        """200 while the workers live: to be asked is to know that the loop turns."""
        dead = [] if self._is_stopping() else self._memory.ended_workers()
        reasons = dict.fromkeys(dead, "this worker has ended; the sidecar has to be restarted")
        return _verdict("alive", reasons, failed=500)

    async def ready(self, _: web.Request) -> web.Response:
        """200 when an event written now would be taken and become durable."""
        return _verdict("ready", await self._reasons(), failed=503)

    async def _reasons(self) -> dict[str, str]:
        if self._is_stopping():
            return {"sidecar": "it is stopping"}
        reasons = await self._check.get()
        if reasons is None:
            reasons = {"stores": "they did not answer in time"}
        return reasons | dict.fromkeys(self._memory.ended_workers(), "this worker has ended")

    async def metrics(self, request: web.Request) -> web.Response:
        """What is known now, in the format that the scraper asks for."""
        metrics, consolidator = self._metrics, self._memory.parts.consolidator
        metrics.take(await self._status.get())
        if consolidator is not None:
            metrics.owned_shards.set(len(consolidator.owned))
            metrics.last_consolidation.set(consolidator.last_success or 0)
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(metrics.registry), headers={hdrs.CONTENT_TYPE: content_type})


def _verdict(name: str, reasons: dict[str, str], *, failed: int) -> web.Response:
    body = msgspec.json.encode({name: not reasons, "reasons": reasons})
    return web.Response(body=body, status=failed if reasons else 200, content_type=JSON)


def make_ops_app(health: Health) -> web.Application:
    """The application of the second listener."""
    app = web.Application()
    app.router.add_get("/healthz", health.alive)
    app.router.add_get("/readyz", health.ready)
    app.router.add_get("/metrics", health.metrics)
    return app
