"""The two listeners of the injector: the webhook over TLS; health and metrics for the kubelet and Prometheus."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable

from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from agentmemory_operator.injector.admission import Admission, Malformed
from agentmemory_operator.injector.metrics import InjectorMetrics

logger = logging.getLogger(__name__)

MAX_BODY = 4 << 20
"""Bytes. The API server takes no object of more than 3 MiB."""
_PATIENCE = 5.0
"""Seconds that requests in progress have when the listener closes."""
_JSON = "application/json"


class Webhook:
    """The listener that the API server calls. Its context says which certificate it serves with."""

    def __init__(self, admission: Admission, context: ssl.SSLContext) -> None:
        self._admission = admission
        self._context = context
        self._leaving = False
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/inject", self._by_pod)
        app.router.add_post("/inject-namespace", self._by_namespace)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_PATIENCE)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError when the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._context).start()
        self.port = int(self._runner.addresses[0][1])
        logger.info("webhook on %s:%d", host, self.port)

    async def stop(self, *, linger: float) -> None:
        """Go on answering for `linger` seconds, in which the API server learns that this address is gone and gives its
        connections up one by one; then close."""
        self._leaving = True
        if self.port:
            await asyncio.sleep(linger)
        await self._runner.cleanup()

    async def _by_pod(self, request: web.Request) -> web.Response:
        return await self._answer(request, by_namespace=False)

    async def _by_namespace(self, request: web.Request) -> web.Response:
        return await self._answer(request, by_namespace=True)

    async def _answer(self, request: web.Request, *, by_namespace: bool) -> web.Response:
        try:
            body = await self._admission.answer(await request.read(), by_namespace=by_namespace)
            response = web.Response(body=body, content_type=_JSON)
        except Malformed as error:
            response = web.Response(text=f"{error}\n", status=400)
        if self._leaving:
            response.force_close()
        return response


class Ops:
    """The listener with /healthz, /readyz and /metrics. Each source of reasons answers what is amiss; nothing: all is
    well."""

    def __init__(
        self, metrics: InjectorMetrics, *, dead: Callable[[], list[str]], unready: Callable[[], list[str]]
    ) -> None:
        self._metrics = metrics
        self._dead = dead
        self._unready = unready
        app = web.Application()
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError when the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _alive(self, _: web.Request) -> web.Response:
        return _verdict(self._dead(), failed=500)

    async def _ready(self, _: web.Request) -> web.Response:
        return _verdict(self._unready(), failed=503)

    async def _exposition(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(self._metrics.registry), headers={hdrs.CONTENT_TYPE: content_type})


def _verdict(reasons: list[str], *, failed: int) -> web.Response:
    body = json.dumps({"ok": not reasons, "reasons": reasons})
    return web.Response(text=body, status=failed if reasons else 200, content_type=_JSON)
