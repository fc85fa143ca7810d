"""Answers in JSON."""

from __future__ import annotations

import msgspec
from aiohttp import web

_encoder = msgspec.json.Encoder()


def answer(value: msgspec.Struct, *, status: int = 200) -> web.Response:
    """The struct as the body."""
    return web.Response(body=_encoder.encode(value), status=status, content_type="application/json")
