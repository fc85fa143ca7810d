"""Requests to the sidecar: one connection pool, repeated where that is safe, failures as typed errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
from yarl import URL

from agentmemory.encoding import decode
from agentmemory.errors import AgentMemoryError, CutOff, Unavailable, UnexpectedAnswer, Unreachable, problem_from
from agentmemory.retries import Retries

SHOWN = 200  # characters of a foreign answer
LONGEST_SILENCE = 60.0  # seconds between two parts of a long answer
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call. `path` is percent-encoded; `key` is the idempotency key of a write; `timeout` is in seconds."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class Answer:
    """A 2xx answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def decode(self, kind: type[T]) -> T:
        """The body as `kind`.

        Raises:
            UnexpectedAnswer: it is something else.
        """
        try:
            return decode(self.body, kind)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswer(f"The sidecar's answer is not what this client knows: {error}.") from None


class Transport:
    """Sends requests to `url`. Each try of one request carries the same key and the same bytes."""

    def __init__(self, url: str, *, client_name: str, timeout: float, retries: Retries) -> None:
        self.url = url.rstrip("/")
        self._headers = {"AgentMemory-Client": client_name}
        self._timeout = timeout
        self._retries = retries
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; nothing is sent yet."""
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, request: Request, *, retries: Retries | None = None) -> Answer:
        """The answer, after as many tries as it takes and as `retries` allows.

        Raises:
            Unreachable: no answer in time.
            ProblemError: the sidecar refused; Unavailable only after the last try.
            UnexpectedAnswer: what answers is not AgentMemory.
        """
        patience = request.timeout or self._timeout
        try:
            return await self._persist(lambda seconds: self._try(request, seconds), patience, retries or self._retries)
        except AgentMemoryError as error:
            error.idempotency_key = request.key
            raise

    async def lines(self, request: Request) -> AsyncIterator[bytes]:
        """The lines of a long answer, each with its end, as they come; tried again until it begins.

        Raises:
            CutOff: it ended in the middle.
            Unreachable, ProblemError, UnexpectedAnswer: it did not begin.
        """
        response = await self._persist(lambda _: self._begin(request), self._timeout, self._retries)
        try:
            rest = b""
            async for part in response.content.iter_any():
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    yield line + b"\n"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CutOff(f"The answer of {self.url} ended in the middle: ask for it again.") from error
        finally:
            response.close()

    async def _begin(self, request: Request) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=LONGEST_SILENCE)
        try:
            response = await self._opened.request(
                request.method, URL(self.url + request.path, encoded=True), timeout=timeout, allow_redirects=False
            )
            if response.status != 200:
                _judge(Answer(response.status, response.headers, await response.read()), self.url)
        except TimeoutError:
            raise Unreachable(f"{self.url} did not begin to answer in time.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{_reason(self.url, error)} Is the sidecar running there?") from error
        return response

    async def _persist(self, attempt: Callable[[float], Awaitable[T]], patience: float, retries: Retries) -> T:
        failures, first_failure, left = 0, 0.0, patience
        while True:
            try:
                return await attempt(min(patience, left))
            except (Unreachable, Unavailable) as error:
                failures += 1
                now = time.monotonic()
                first_failure = first_failure or now
                asked = error.retry_after if isinstance(error, Unavailable) else None
                pause = retries.pause(failures, now - first_failure, asked)
                if pause is None:
                    raise
                left = retries.budget - (now - first_failure) - pause
            await asyncio.sleep(pause)

    async def _try(self, request: Request, seconds: float) -> Answer:
        headers = dict(request.headers)
        if request.key is not None:
            headers["Idempotency-Key"] = request.key
        try:
            async with self._opened.request(
                request.method,
                URL(self.url + request.path, encoded=True),
                data=request.body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                return _judge(Answer(response.status, response.headers, await response.read()), self.url)
        except TimeoutError:
            raise Unreachable(f"{self.url} did not answer within {seconds:.3g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{_reason(self.url, error)} Is the sidecar running there?") from error

    async def follow(self, request: Request, *, silence: float) -> AsyncGenerator[str, None]:
        """The lines of an answer that comes bit by bit, in one try; `silence` is how many seconds it may say nothing.

        Raises:
            Unreachable: no answer, one that was cut off, or silence.
            ProblemError: the sidecar refused.
            UnexpectedAnswer: what answers is not AgentMemory.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        try:
            async with self._opened.request(
                request.method,
                URL(self.url + request.path, encoded=True),
                headers=dict(request.headers),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    _judge(Answer(response.status, response.headers, await response.read()), self.url)
                rest = b""
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line.decode(errors="replace")
        except TimeoutError:
            raise Unreachable(f"{self.url} said nothing for {silence:.3g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{_reason(self.url, error)} Is the sidecar running there?") from error

    @property
    def retries(self) -> Retries:
        """How long a request is repeated."""
        return self._retries

    @property
    def timeout(self) -> float:
        """Seconds for one try of a request."""
        return self._timeout

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("AgentMemory is not open: use it as `async with AgentMemory() as memory:`.")
        return self._session


def _judge(answer: Answer, url: str) -> Answer:
    if 200 <= answer.status < 300:
        return answer
    problem = problem_from(answer.status, answer.body)
    if problem is None and answer.status == 503:
        problem = Unavailable(status=503, title=f"{url} is temporarily unavailable.")
    if problem is None:
        shown = answer.body[:SHOWN].decode(errors="replace")
        raise UnexpectedAnswer(f"{url} answered {answer.status} and is not AgentMemory; check the address: {shown!r}")
    if isinstance(problem, Unavailable):
        problem.retry_after = _seconds(answer.headers.get("Retry-After"))
    raise problem


def _reason(url: str, error: aiohttp.ClientError | OSError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
        return f"Nothing listens at {url}."
    return f"No answer from {url} ({str(error) or type(error).__name__})."


def _seconds(retry_after: str | None) -> float | None:
    # The other form that HTTP allows, a date, is left to the backoff.
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
