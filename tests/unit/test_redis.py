"""The connection to Redis, against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

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
