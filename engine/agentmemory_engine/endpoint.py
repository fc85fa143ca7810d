"""One endpoint over HTTP: what it is asked, when it is asked again, and what its refusals mean.

Neither the key nor what the endpoint says is ever repeated in an error or a log: both may hold a secret, the text too.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from agentmemory_engine.errors import ProviderUnavailable

T = TypeVar("T")
ApiKey = Callable[[], str | None]
"""Answers the key of this moment, None where the endpoint wants none. Raises ProviderUnavailable."""

OFFICIAL = "https://api.openai.com/v1"
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
_LONGEST_REST = 3600.0
_TOO_MANY = 429
_AWAY = frozenset((408, 409, 425, _TOO_MANY, 502, 503, 504))
"""What says that the endpoint is not there for anyone now, whatever it was asked."""
_DENIED = frozenset((401, 403))


class Refused(Exception):
    """The endpoint is there, and does not take this request as it is."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"status {status}{code and f', {code}'}")
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Patience:
    """In seconds: for one try, for all tries of texts and of a query, between tries, and for an endpoint to recover."""

    one: float = 30.0
    texts: float = 45.0
    query: float = 10.0
    first: float = 0.5
    longest: float = 8.0
    rest: float = 30.0
    tries: int = 3

    def pause(self, failures: int) -> float:
        """After so many failures; varied, lest many come back at once."""
        return min(self.longest, self.first * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


class _Trouble(Exception):
    """A try that failed. `after` is when the endpoint wants the next, `away` whether it is there for anyone."""

    def __init__(self, message: str, *, away: bool, again: bool = True, after: float | None = None) -> None:
        super().__init__(message)
        self.away = away
        self.again = again
        self.after = after


class TimedOut(ProviderUnavailable):
    """It is there, and takes too long over this."""


class Endpoint:
    """`POST` of JSON to one address. Opened when it is first asked.

    `setting` is the member of the spec that the address came from, as messages name it.
    """

    def __init__(self, url: str, key: ApiKey, patience: Patience, *, setting: str) -> None:
        self._url = url
        self._setting = setting
        self._key = key
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._rests_until = 0.0

    async def close(self) -> None:
        """What is under way raises ProviderUnavailable."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: bytes, decode: Callable[[bytes], T], *, largest: int, query: bool) -> T:
        """What `decode` makes of the answer, of `largest` bytes at most; ValueError from it is the endpoint's fault.

        A query is not kept from an endpoint that rests, and is given up sooner. Raises Refused, ProviderUnavailable.
        """
        rest = self._rests_until - time.monotonic()
        if rest > 0 and not query:
            raise ProviderUnavailable(f"the provider is left alone for another {rest:.0f} s")
        deadline = time.monotonic() + (self._patience.query if query else self._patience.texts)
        failures = 0
        while True:
            try:
                return await self._try(body, decode, largest, deadline)
            except _Trouble as trouble:
                failures += 1
                pause = self._patience.pause(failures) if trouble.after is None else trouble.after
                if trouble.again and failures < self._patience.tries and time.monotonic() + pause < deadline:
                    await asyncio.sleep(pause)
                    continue
                if trouble.away:
                    self._rests_until = time.monotonic() + min(_LONGEST_REST, trouble.after or self._patience.rest)
                raise ProviderUnavailable(str(trouble)) from None

    async def _try(self, body: bytes, decode: Callable[[bytes], T], largest: int, deadline: float) -> T:
        headers = self._headers()
        left = min(self._patience.one, deadline - time.monotonic())
        try:
            async with asyncio.timeout(left):
                answer = await self._post(body, headers, largest)
        except TimeoutError:
            raise TimedOut(f"the provider does not answer within {left:.3g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if self._closed:
                raise ProviderUnavailable("it is closed") from None
            raise _Trouble(f"the provider cannot be reached: {type(error).__name__}", away=True) from None
        try:
            # Some tens of milliseconds for long vectors: not on the loop.
            return await asyncio.to_thread(decode, answer)
        except ValueError as error:
            raise _Trouble(f"the provider's answer is wrong: {error}", away=False) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = self._key()
        if key is None:
            return headers
        if _KEY.fullmatch(key) is None:
            raise ProviderUnavailable("the API key is not one line of printable ASCII; mend the Secret, or the file")
        return {**headers, "Authorization": f"Bearer {key}"}

    async def _post(self, body: bytes, headers: Mapping[str, str], largest: int) -> bytes:
        if self._closed:
            raise ProviderUnavailable("it is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
            )
        # A redirect would carry the key elsewhere.
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await _read(response, largest)
        if response.status == 200:
            if answer is None:
                raise _Trouble(f"the provider's answer is wrong: it has more than {largest:,} bytes", away=False)
            return answer
        raise _reason(response.status, response.headers, answer or b"", self._setting)


async def _read(response: aiohttp.ClientResponse, largest: int) -> bytes | None:
    """The body, or None where it is larger."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > largest:
            response.close()
            return None
    return bytes(body)


def _reason(status: int, headers: Mapping[str, str], body: bytes, setting: str) -> Exception:
    """What an answer other than 200 means."""
    after = retry_after(headers)
    if status in _DENIED:
        said = f"the provider refuses the API key (status {status}); put a valid one into the Secret, or the file"
        return _Trouble(said, away=True, again=False)
    if 200 <= status < 400:
        return _Trouble(
            f"the provider answers with status {status}; set {setting} to the API itself",
            away=True,
            again=False,
        )
    if status in _AWAY or status >= 500:
        again = headers.get("x-should-retry") != "false"
        return _Trouble(f"the provider answers with status {status}", away=status in _AWAY, again=again, after=after)
    return Refused(status, _code(body))


def _code(body: bytes) -> str:
    """The short code of an OpenAI error, where there is one; never its message, which may repeat what was sent."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    error = found.get("error") if isinstance(found, dict) else None
    for name in ("code", "type"):
        value = error.get(name) if isinstance(error, dict) else None
        if isinstance(value, str) and _CODE.fullmatch(value):
            return value
    return ""


def address(base_url: str, path: str, setting: str) -> str:
    """The address of one route of an API. Raises ValueError for a base that is none."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"`{setting}` is an address such as {OFFICIAL}: http or https, with no login and no query.")
    return base_url.rstrip("/") + path


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `retry-after-ms` or `Retry-After` asks for; None where neither says."""
    try:
        if "retry-after-ms" in headers:
            return _seconds(float(headers["retry-after-ms"]) / 1000)
        if "Retry-After" in headers:
            return _seconds(float(headers["Retry-After"]))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(headers.get("Retry-After", ""))
    except (TypeError, ValueError):
        return None
    return _seconds((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _seconds(value: float) -> float | None:
    return max(0.0, value) if value == value and value < float("inf") else None
