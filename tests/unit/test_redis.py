"""The connection to Redis, against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentmemory_engine import connection
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.redis import Credentials, Redis, RedisAddress


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server that takes connections and never answers; its address, and who came."""
    guests: list[asyncio.StreamWriter] = []

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guests.append(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(welcome, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", guests
    finally:
        server.close()
        for guest in guests:
            guest.transport.abort()
        await server.wait_closed()


async def test_all_who_wait_for_a_connection_share_its_failure() -> None:
    async with silent_server() as (url, guests):
        redis = Redis(RedisAddress(url=url, credentials=lambda: Credentials("u", "p"), timeout=0.2))
        answers = await asyncio.gather(*(redis.execute("PING") for _ in range(50)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert len(guests) == 1
        await redis.close()


async def test_a_caller_that_goes_away_does_not_take_the_connection_of_the_others_along() -> None:
    async with silent_server() as (url, guests):
        redis = Redis(RedisAddress(url=url, credentials=lambda: Credentials("u", "p"), timeout=0.2))
        first = asyncio.create_task(redis.execute("PING"))
        while not guests:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(redis.execute("PING"))
        first.cancel()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await second
        assert len(guests) == 1
        await redis.close()


async def test_closing_ends_a_connection_that_is_being_made() -> None:
    async with silent_server() as (url, guests):
        redis = Redis(RedisAddress(url=url, credentials=lambda: Credentials("u", "p"), timeout=60.0))
        waiting = asyncio.create_task(redis.execute("PING"))
        while not guests:
            await asyncio.sleep(0.001)
        await redis.close()
        with pytest.raises(StoreUnavailable):
            await waiting
        with pytest.raises(StoreUnavailable, match="closed"):
            await redis.execute("PING")


class SlowServer:
    """Takes the logins it is told to, and answers a GET only when it is released, with the login that asked."""

    def __init__(self, *usernames: str) -> None:
        self.usernames = set(usernames)
        self.released = asyncio.Event()
        self.logins: list[str] = []
        self.guests = 0

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.guests += 1
        with contextlib.suppress(ConnectionError):
            await self._serve(reader, writer)
        self.guests -= 1
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        username = b""
        while command := await self._read(reader):
            if command[0] == b"HELLO":
                username = command[3]
                self.logins.append(username.decode())
                known = username.decode() in self.usernames
                writer.write(b"%0\r\n" if known else b"-WRONGPASS no such login\r\n")
            elif command[0] == b"INFO":
                writer.write(b"$%d\r\n%s\r\n" % (len(_INFO), _INFO))
            else:
                await self.released.wait()
                writer.write(b"$%d\r\n%s\r\n" % (len(username), username))

    async def _read(self, reader: asyncio.StreamReader) -> list[bytes]:
        count = await reader.readline()
        if not count:
            return []
        lines = [await reader.readline() for _ in range(2 * int(count[1:]))]
        return [line.rstrip() for line in lines[1::2]]


_INFO = b"redis_version:7.2.0\r\nrun_id:one\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n"


@asynccontextmanager
async def connected(server: SlowServer, login: list[Credentials]) -> AsyncIterator[Redis]:
    """A client of the server whose login is the last in the list, whenever it asks."""
    listening = await asyncio.start_server(server.welcome, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    redis = Redis(RedisAddress(url=url, credentials=lambda: login[-1], timeout=60.0))
    try:
        yield redis
    finally:
        await redis.close()
        listening.close()
        server.released.set()
        while server.guests:
            await asyncio.sleep(0.001)
        await listening.wait_closed()


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    """Grows by one with each call of that method from now on."""
    calls: list[None] = []
    method = getattr(owner, name)

    def counted(*args: Any) -> Any:
        calls.append(None)
        return method(*args)

    monkeypatch.setattr(owner, name, counted)
    return calls


async def test_what_is_under_way_at_a_renewal_is_answered_on_the_connection_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_LINGER", 0.001)
    looks = count_calls(monkeypatch, connection.Connection, "_close_when_idle")
    server, login = SlowServer("old", "new"), [Credentials("old", "p")]
    async with connected(server, login) as redis:
        old = await redis.connection()
        before = asyncio.create_task(redis.execute("GET", "k"))
        await asyncio.sleep(0)
        assert not await redis.renew()
        login.append(Credentials("new", "p"))
        assert await redis.renew()
        after = asyncio.create_task(redis.execute("GET", "k"))
        # A flow of several commands goes on where it began.
        third = old.send("GET", "k")
        while len(looks) < 3:
            await asyncio.sleep(0.001)
        server.released.set()
        assert (await before, await after, await third) == (b"old", b"new", b"old")
        while not old.lost or server.guests > 1:
            await asyncio.sleep(0.001)


async def test_a_login_that_is_refused_leaves_the_connection_as_it_is() -> None:
    server, login = SlowServer("old"), [Credentials("old", "p")]
    async with connected(server, login) as redis:
        old = await redis.connection()
        login.append(Credentials("new", "p"))
        with pytest.raises(StoreUnavailable, match="refused the login"):
            await redis.renew()
        assert await redis.connection() is old
        redis.drop()
        assert not (await redis.connection()).lost
        assert server.logins == ["old", "new", "new", "old"]


async def test_with_no_login_that_is_accepted_the_new_one_is_what_is_complained_of() -> None:
    server, login = SlowServer("old"), [Credentials("old", "p")]
    async with connected(server, login) as redis:
        await redis.connection()
        redis.drop()
        server.usernames.clear()
        with pytest.raises(StoreUnavailable, match="refused the login"):
            await redis.connection()


async def test_nothing_is_renewed_that_was_never_connected_or_is_closed() -> None:
    server, login = SlowServer("old", "new"), [Credentials("old", "p")]
    async with connected(server, login) as redis:
        assert not await redis.renew()
        assert server.logins == []
        await redis.connection()
        login.append(Credentials("new", "p"))
        await redis.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await redis.renew()
