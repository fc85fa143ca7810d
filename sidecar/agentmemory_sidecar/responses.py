"""Answers in JSON."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

_encoder = msgspec.json.Encoder()


def answer(value: msgspec.Struct, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """The struct as the body."""
    body = _encoder.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
