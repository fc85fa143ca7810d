"""The operator's own listener: health for the kubelet, metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from agentmemory_operator.metrics import Metrics


class Ops:
    """`/healthz`, `/readyz`, `/metrics`. `sick` answers what only a restart mends."""

    def __init__(self, metrics: Metrics, sick: Callable[[], list[str]]) -> None:
        self._metrics = metrics
        self._sick = sick
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        # A replica that waits for the Lease is as ready as one can be.
        app.router.add_get("/readyz", self._health)
        app.router.add_get("/metrics", self._expose)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self, port: int) -> None:
        """Raises OSError when the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        reasons = self._sick()
        return web.json_response({"reasons": reasons}, status=500 if reasons else 200)

    async def _expose(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._metrics.registry), headers={"Content-Type": content_type})
