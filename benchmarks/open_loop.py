"""Requests at times that were fixed before: a slow answer delays nobody else's request, and every wait is counted.

A time counts from when the request was meant to be sent, so that a server that stalls is not asked less often for it
(coordinated omission).
"""

from __future__ import annotations

import ctypes
import gc
import select
import socket
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.errors import BenchmarkFailed
from benchmarks.raw_http import connect, parse_response

_READ = 1 << 16
_LEAD = 0.05  # seconds before the first request
_PATIENCE = 30.0  # seconds without any answer
_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True)
class Due:
    """A request that is to be sent `at` seconds after the start, on one of the connections."""

    at: float
    connection: int
    kind: str
    request: bytes


def spread_evenly(
    *, kind: str, connections: Sequence[int], interval: float, seconds: float, request: Callable[[int, int], bytes]
) -> list[Due]:
    """Each connection once an interval, out of step with each other; `request` is given the connection and a count."""
    dues = []
    for place, connection in enumerate(connections):
        offset = interval * place / len(connections)
        for count in range(round(seconds / interval)):
            dues.append(Due(offset + count * interval, connection, kind, request(connection, count)))
    return dues


@dataclass(eq=False)
class _Line:
    """One connection: what waits for it, what is under way, what has come of the answer."""

    socket: socket.socket
    waiting: deque[Due] = field(default_factory=deque)
    current: Due | None = None
    buffer: bytes = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def take(self, due: Due) -> None:
        self.waiting.append(due)
        if self.current is None:
            self.send_next()

    def send_next(self) -> None:
        self.current = self.waiting.popleft() if self.waiting else None
        if self.current is not None:
            self.socket.sendall(self.current.request)

    def receive(self) -> Due | None:
        """What is answered now, once the answer is whole; the next one is sent. Raises BenchmarkFailed."""
        data = self.socket.recv(_READ)
        if not data:
            raise BenchmarkFailed("the sidecar closed a connection")
        self.buffer += data
        response = parse_response(self.buffer)
        if response is None:
            return None
        if not 200 <= response.status < 300:
            raise BenchmarkFailed(f"the sidecar answered {response.status}: {response.body[:300]!r}")
        self.buffer = self.buffer[response.size :]
        answered = self.current
        self.send_next()
        return answered


def run(port: int, schedule: Sequence[Due]) -> dict[str, list[float]]:
    """The times of all requests, by kind, in seconds. Raises BenchmarkFailed for an answer other than 2xx."""
    _wake_on_time()
    connections = {due.connection for due in schedule}
    lines = {number: _Line(connect(port)) for number in connections}
    gc.disable()
    try:
        return _run(lines, deque(sorted(schedule, key=lambda due: due.at)))
    finally:
        gc.enable()
        for line in lines.values():
            line.socket.close()


def _run(lines: dict[int, _Line], ahead: deque[Due]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    busy: set[_Line] = set()
    start = perf_counter() + _LEAD
    while ahead or busy:
        while ahead and ahead[0].at <= perf_counter() - start:
            line = lines[ahead[0].connection]
            line.take(ahead.popleft())
            busy.add(line)
        for line in _readable(busy, ahead[0].at - (perf_counter() - start) if ahead else _PATIENCE):
            answered = line.receive()
            if answered is not None:
                times[answered.kind].append(perf_counter() - start - answered.at)
        busy = {line for line in busy if line.current is not None}
    return times


def _readable(lines: set[_Line], seconds: float) -> list[_Line]:
    """Those with an answer, as soon as one has. Raises BenchmarkFailed when none came in all that patience."""
    # `select` waits to the microsecond, where `epoll` rounds up to the next millisecond.
    ready, _, _ = select.select(list(lines), [], [], max(0.0, seconds))
    if not ready and seconds >= _PATIENCE:
        raise BenchmarkFailed(f"{len(lines)} requests were not answered within {seconds:.0f} s")
    return ready


def _wake_on_time() -> None:
    """Ask Linux not to be late by the 50 us that it may otherwise be."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
