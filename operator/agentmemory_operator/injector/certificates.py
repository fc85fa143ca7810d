"""The certificate that the webhook serves with, read anew when its files change.

The kubelet swaps the files of a Secret under the running process. Each handshake takes the context that is newest then,
so the port never closes, connections in use go on, and a pair that cannot be used leaves the last good one in place.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from agentmemory_operator.certificates import expires

logger = logging.getLogger(__name__)

CERTIFICATE = "tls.crt"
KEY = "tls.key"


class ServingCertificate:
    """`tls.crt` and `tls.key` of a directory. `on_load` is told when a certificate expires, `on_failure` of a pair that
    cannot be used; a pair is complained of once."""

    def __init__(
        self,
        directory: Path,
        *,
        on_load: Callable[[datetime], None] = lambda _: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._on_load = on_load
        self._on_failure = on_failure
        self._current: ssl.SSLContext | None = None
        self._seen: tuple[bytes, bytes] | None = None
        """What the last look found. Files that are not there yet are no news."""
        self.loaded = asyncio.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """For the listener. It has no certificate of its own; the newest one is put in its place in each handshake."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.sni_callback = self._choose

    async def run(self, every: float) -> None:
        """Look at the files, then again after every so many seconds, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(every)

    async def refresh(self) -> None:
        """Look at the files once. What is wrong with them is logged, not raised."""
        pair = await asyncio.to_thread(_read, self._directory)
        if pair == self._seen:
            return
        self._seen = pair
        if pair is None:
            self._failed("its files are gone")
            return
        try:
            context, end = await asyncio.to_thread(_load, self._directory, pair[0])
        except (OSError, ValueError) as error:
            self._failed(f"{CERTIFICATE} and {KEY} are not a pair that can be used: {error}")
            return
        self._current = context
        self.loaded.set()
        self._on_load(end)
        logger.info("serving with a certificate that expires at %s", end.isoformat())

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        if self._current is not None:
            connection.context = self._current

    def _failed(self, why: str) -> None:
        self._on_failure()
        kept = "the last good one stays" if self._current is not None else "there is none yet"
        logger.error("the certificate in %s was not read; %s: %s", self._directory, kept, why)


def _read(directory: Path) -> tuple[bytes, bytes] | None:
    """None where the files are not there."""
    try:
        return (directory / CERTIFICATE).read_bytes(), (directory / KEY).read_bytes()
    except OSError:
        return None


def _load(directory: Path, certificate: bytes) -> tuple[ssl.SSLContext, datetime]:
    """A context with this pair, and when it expires. Raises OSError (of which ssl.SSLError is one) and ValueError.

    Files that change meanwhile do no harm: a mixed pair is refused, and the next look finds that they have changed.
    """
    end = expires(certificate.decode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With a password OpenSSL never asks for one on a terminal.
    context.load_cert_chain(directory / CERTIFICATE, directory / KEY, password="")
    return context, end
