"""The certificate of the webhook: real handshakes before and after its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from agentmemory_operator.certificates import fingerprint
from agentmemory_operator.injector.certificates import ServingCertificate
from support.mounted import AUTHORITY, MountedSecret, leaf

FIRST, SECOND = leaf(), leaf()


@pytest.fixture
def mounted(tmp_path: Path) -> MountedSecret:
    return MountedSecret(tmp_path)


class Told:
    """What a certificate says of itself."""

    def __init__(self) -> None:
        self.expiries: list[datetime] = []
        self.failures = 0

    def failed(self) -> None:
        self.failures += 1


def serving(mounted: MountedSecret, told: Told | None = None) -> ServingCertificate:
    told = told or Told()
    return ServingCertificate(mounted.directory, on_load=told.expiries.append, on_failure=told.failed)


@asynccontextmanager
async def listening(certificate: ServingCertificate) -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificate.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def connect(
    port: int, *, name: str = "localhost", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    context.maximum_version = version
    context.check_hostname = name == "localhost"
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


async def seen(port: int, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str = "localhost") -> str:
    """The fingerprint of the certificate that a new connection is shown."""
    _, writer = await connect(port, version=version, name=name)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    writer.close()
    return fingerprint(ssl.DER_cert_to_PEM_cert(certificate))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_it_is_shown_whatever_the_client_speaks(
    mounted: MountedSecret, version: ssl.TLSVersion, name: str
) -> None:
    """A client that connects to an address names no server."""
    mounted.put(FIRST)
    certificate = serving(mounted)
    await certificate.refresh()
    async with listening(certificate) as port:
        assert await seen(port, version=version, name=name) == fingerprint(FIRST.certificate)


async def test_a_new_one_is_shown_to_new_connections_and_old_ones_go_on(mounted: MountedSecret) -> None:
    mounted.put(FIRST)
    told = Told()
    certificate = serving(mounted, told)
    await certificate.refresh()
    async with listening(certificate) as port:
        reader, writer = await connect(port)
        mounted.put(SECOND)
        assert await seen(port) == fingerprint(FIRST.certificate)
        await certificate.refresh()
        assert await seen(port) == fingerprint(SECOND.certificate)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()
    assert len(told.expiries) == 2
    assert told.failures == 0


def encrypted(key: str) -> str:
    loaded = load_pem_private_key(key.encode(), None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        pytest.param(SECOND.certificate, FIRST.key, id="the key of another"),
        pytest.param(SECOND.certificate[:300], SECOND.key, id="half a certificate"),
        pytest.param(SECOND.certificate, SECOND.key[:100], id="half a key"),
        pytest.param("", "", id="nothing"),
        pytest.param("\udcff".encode(errors="surrogateescape").decode("latin1"), SECOND.key, id="no text"),
        pytest.param(SECOND.certificate, encrypted(SECOND.key), id="a key under a password"),
    ],
)
async def test_a_pair_that_cannot_be_used_leaves_the_last_one(
    mounted: MountedSecret, certificate: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    mounted.put(FIRST)
    told = Told()
    ours = serving(mounted, told)
    await ours.refresh()
    mounted.write(certificate, key)
    for _ in range(3):
        await ours.refresh()
    async with listening(ours) as port:
        assert await seen(port) == fingerprint(FIRST.certificate)
        assert told.failures == 1, "it is complained of once"
        assert "the last good one stays" in caplog.text
        assert "PRIVATE KEY" not in caplog.text
        mounted.put(SECOND)
        await ours.refresh()
        assert await seen(port) == fingerprint(SECOND.certificate)
    assert told.failures == 1


async def test_files_that_are_gone_leave_the_last_one(mounted: MountedSecret) -> None:
    mounted.put(FIRST)
    told = Told()
    ours = serving(mounted, told)
    await ours.refresh()
    mounted.remove()
    await ours.refresh()
    await ours.refresh()
    assert told.failures == 1
    async with listening(ours) as port:
        assert await seen(port) == fingerprint(FIRST.certificate)
    mounted.put(FIRST)
    await ours.refresh()
    assert len(told.expiries) == 2


async def test_files_that_come_late_are_waited_for(mounted: MountedSecret, caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    ours = serving(mounted, told)
    task = asyncio.create_task(ours.run(0.01))
    await ours.refresh()
    assert not ours.loaded.is_set()
    assert told.failures == 0
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    mounted.put(FIRST)
    async with asyncio.timeout(60):
        await ours.loaded.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_it_tells_when_it_expires_even_if_that_was_yesterday(mounted: MountedSecret) -> None:
    told = Told()
    mounted.put(leaf(after=-timedelta(days=91)))
    await serving(mounted, told).refresh()
    assert told.expiries[0] < datetime.now(UTC)
