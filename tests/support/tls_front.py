"""TLS in front of the embedded stores, whose builds have none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from agentmemory.local.stores import LocalStores
from support.certificates import Authority

HOST = "127.0.0.1"
_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


class Front:
    """Shows a certificate on a port, and passes on to a Unix socket. `postgres` negotiates TLS as Postgres does."""

    def __init__(self, socket: str, directory: Path, *, postgres: bool) -> None:
        self._socket = socket
        self._directory = directory
        self._postgres = postgres
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._guests: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def show(self, authority: Authority, address: str = HOST) -> None:
        """Show a certificate of this authority from now on."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue_files(self._directory, address))

    def refuse(self) -> None:
        """Be as a store that is away: end every connection, and every one that comes."""
        self._socket = ""
        self.hang_up()

    def hang_up(self) -> None:
        """End every connection."""
        while self._guests:
            self._guests.pop().transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Front]:
        server = await asyncio.start_server(self._welcome, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.hang_up()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if self._postgres:
                assert await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST
                writer.write(b"S")
            await writer.start_tls(self._context)
            inner_reader, inner_writer = await asyncio.open_unix_connection(self._socket)
        except (OSError, EOFError):
            writer.transport.abort()
            return
        self._guests.add(inner_writer)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.transport.abort()


def fronts(stores: LocalStores, directory: Path) -> tuple[Front, Front]:
    """In front of Valkey, and of Postgres."""
    query = parse_qs(urlsplit(stores.postgres_dsn_admin).query)
    postgres = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
    valkey = unquote(urlsplit(stores.redis_url).path)
    return Front(valkey, directory, postgres=False), Front(postgres, directory, postgres=True)
