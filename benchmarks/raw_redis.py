"""A client of Redis with nothing in it: a blocking socket, one command at a time. The floor under every hot read."""

from __future__ import annotations

import socket
from typing import Any, Self

import hiredis

from benchmarks.errors import BenchmarkFailed

_READ = 1 << 16
_TIMEOUT = 10.0


def pack(*args: bytes | str | int) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(args)  # type: ignore[arg-type]
    return packed


class RawRedis:
    """One connection; `address` is a path of a Unix socket, or a port on 127.0.0.1."""

    def __init__(self, address: str | int, user: str, password: str) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(address if isinstance(address, str) else ("127.0.0.1", address))
        # Without a time limit a call is one system call, not two.
        self._socket.settimeout(None)
        if family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self.command("AUTH", user, password)

    def exchange(self, packed: bytes) -> Any:
        """Send a packed command; its reply. Raises BenchmarkFailed for an error reply."""
        self._socket.sendall(packed)
        reply: Any = False
        while reply is False:
            data = self._socket.recv(_READ)
            if not data:
                raise BenchmarkFailed("Redis closed the connection")
            self._reader.feed(data)
            reply = self._reader.gets()
        if isinstance(reply, hiredis.ReplyError):
            raise BenchmarkFailed(f"Redis answered {reply}")
        return reply

    def command(self, *args: bytes | str | int) -> Any:
        """Run a command. Raises BenchmarkFailed for an error reply."""
        return self.exchange(pack(*args))

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
