"""A client of HTTP with nothing in it: a kept connection, one request at a time, answers with a Content-Length."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from benchmarks.errors import BenchmarkFailed

_READ = 1 << 16
_TIMEOUT = 60.0
_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
HOST = "127.0.0.1"


class Response(NamedTuple):
    """An answer, and how many bytes of the buffer it took."""

    status: int
    body: bytes
    size: int


def make_request(method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "AgentMemory-Client: benchmarks"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + _END + (body or b"")


def parse_response(buffer: bytes) -> Response | None:
    """The first answer in the buffer; None while it is not whole. Raises BenchmarkFailed for one without a length."""
    end = buffer.find(_END)
    if end < 0:
        return None
    head = buffer[: end + 2].lower()
    start = head.find(_LENGTH)
    if start < 0:
        raise BenchmarkFailed(f"an answer has no Content-Length: {head[:60]!r}")
    length = int(head[start + len(_LENGTH) : head.index(b"\r\n", start + 2)])
    size = end + len(_END) + length
    if len(buffer) < size:
        return None
    return Response(int(head[9:12]), buffer[end + len(_END) : size], size)


def connect(port: int) -> socket.socket:
    """A connection to a port of 127.0.0.1, blocking and without delay."""
    connection = socket.create_connection((HOST, port), _TIMEOUT)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class RawHttp:
    """One connection to the sidecar."""

    def __init__(self, port: int) -> None:
        self._socket = connect(port)

    def exchange(self, request: bytes) -> Response:
        """Send a request; its answer. Raises BenchmarkFailed for any but 2xx."""
        self._socket.sendall(request)
        buffer = self._socket.recv(_READ)
        while (response := parse_response(buffer)) is None:
            data = self._socket.recv(_READ)
            if not data:
                raise BenchmarkFailed("the sidecar closed the connection")
            buffer += data
        if not 200 <= response.status < 300:
            raise BenchmarkFailed(f"the sidecar answered {response.status}: {response.body[:300]!r}")
        return response

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON (bytes go as they are), receive JSON. Raises BenchmarkFailed for any but 2xx."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self.exchange(make_request(method, path, data)).body)

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
