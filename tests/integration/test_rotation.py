"""Logins rotate while agents work: no request fails, nothing is lost, and the old login can go."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine import connection
from agentmemory_engine.administration import drop_login, set_login
from agentmemory_engine.redis import Credentials
from agentmemory_engine.schema import drop_login as drop_postgres_login
from agentmemory_engine.schema import provision
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from support.memories import admin_postgres, admin_redis
from support.sidecars import LettersEmbedder, Running, make_config, write_login

AGENTS = 8


class Administrators:
    """What an operator does to the logins of one memory."""

    def __init__(self, stores: LocalStores, settings: Settings, directory: Path) -> None:
        self._stores = stores
        self._settings = settings
        self._directory = directory

    async def admit(self, login: Credentials) -> None:
        async with admin_redis(self._stores) as client:
            await set_login(client, self._settings.keys, login)
        admin = await admin_postgres(self._stores)
        await provision(admin, self._settings.keys.schema, login)
        await admin.close()

    async def drop(self, username: str) -> None:
        async with admin_redis(self._stores) as client:
            await drop_login(client, username)
        admin = await admin_postgres(self._stores)
        await drop_postgres_login(admin, self._settings.keys.schema, username)
        await admin.close()

    def mount(self, login: Credentials) -> None:
        """Replace all files at once, as a mounted Secret is: a new folder, and a link that is renamed over the old."""
        draft = self._directory / f"..{os.urandom(4).hex()}"
        write_login(draft, login)
        link = self._directory / "..new"
        link.symlink_to(draft.name)
        link.rename(self._directory / "..data")

    async def used(self) -> set[str]:
        """The logins of this memory that have connections to either store."""
        async with admin_redis(self._stores) as client:
            found = {one["user"] for one in await client.client_list()}
        admin = await admin_postgres(self._stores)
        rows = await admin.fetch("SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'agentmemory'")
        await admin.close()
        found |= {row["usename"] for row in rows}
        return {name for name in found if name.startswith(self._settings.keys.schema)}

    async def wait_until_only(self, login: Credentials) -> None:
        async with asyncio.timeout(30):
            while await self.used() != {login.username}:
                await asyncio.sleep(0.02)


@pytest.fixture
def administrators(stores: LocalStores, settings: Settings, login: Credentials, tmp_path: Path) -> Administrators:
    """They have mounted the first login."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    for store in ("redis", "postgres"):
        for part in ("username", "password"):
            (directory / f"{store}-{part}").symlink_to(f"..data/{store}-{part}")
    administrators = Administrators(stores, settings, directory)
    administrators.mount(login)
    return administrators


@pytest.fixture
def config(stores: LocalStores, settings: Settings, administrators: Administrators, tmp_path: Path) -> Config:
    config = make_config(stores, settings, write_login(tmp_path / "unused", Credentials("nobody", "nothing")))
    files = type(config.credentials)(tmp_path / "mounted")
    return make_config(stores, settings, files, look_every=0.02)


class Work:
    """Agents that write and read all the time; each request has to succeed at once."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.acknowledged: dict[str, list[str]] = {f"agent-{number}": [] for number in range(AGENTS)}
        self.failures: list[Any] = []
        self._over = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._agent(agent)) for agent in self.acknowledged]
        try:
            yield
        finally:
            self._over = True
            await asyncio.gather(*tasks)

    async def _agent(self, agent: str) -> None:
        address = f"/v1/agents/{agent}"
        while not self._over:
            content = f"{agent} says {len(self.acknowledged[agent])}"
            turn = {"events": [{"content": content}], "working_memory": {"merge": {"last": content}}}
            answers = [await self._running.send("POST", address + "/turns", turn)]
            self.acknowledged[agent].append(content)
            answers.append(await self._running.send("GET", address + "/working-memory"))
            answers.append(await self._running.send("GET", address + "/events?limit=3"))
            answers.append(await self._running.send("POST", address + "/recall", {"query": content}))
            self.failures += [answer for answer in answers if answer.status not in (200, 201)]

    async def progress(self) -> None:
        """Until every agent has come further."""
        before = {agent: len(said) for agent, said in self.acknowledged.items()}
        async with asyncio.timeout(30):
            while any(len(self.acknowledged[agent]) < count + 3 for agent, count in before.items()):
                await asyncio.sleep(0.01)


async def told(running: Running, agent: str) -> list[str]:
    """Everything that the agent has in its timeline, oldest first."""
    said: list[str] = []
    more = ""
    while True:
        page = (await running.send("GET", f"/v1/agents/{agent}/events?limit=500{more}")).json()
        said += [event["content"] for event in page["events"]]
        if page["cursor"] is None:
            return said
        more = f"&cursor={page['cursor']}"


async def test_no_request_fails_while_the_logins_alternate(
    config: Config, login: Credentials, administrators: Administrators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER", 0.05)
    second = Credentials(login.username + "_2", "the second password")
    third = Credentials(login.username, "the third password")
    async with Running(config, embedder=LettersEmbedder(), postgres_timeout=10.0) as running:
        await running.wait_until_ready()
        work = Work(running)
        async with work.going_on():
            for old, new in ((login, second), (second, third)):
                await work.progress()
                await administrators.admit(new)
                administrators.mount(new)
                await administrators.wait_until_only(new)
                await work.progress()
                await administrators.drop(old.username)
                await work.progress()
        assert work.failures == []
        for agent, said in work.acknowledged.items():
            assert await told(running, agent) == said


async def test_a_login_that_is_not_there_yet_is_waited_for_with_the_one_before(
    config: Config,
    stores: LocalStores,
    login: Credentials,
    administrators: Administrators,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    early = Credentials(login.username + "_2", "announced too early")
    async with Running(config, embedder=LettersEmbedder()) as running:
        await running.wait_until_ready()
        work = Work(running)
        async with work.going_on():
            await work.progress()
            administrators.mount(early)
            async with asyncio.timeout(30):
                while len(complaints(caplog)) < 2:
                    await asyncio.sleep(0.01)
            await work.progress()
        assert work.failures == []
        # What has to connect anew in the meantime still can.
        await cut_off(stores, login)
        await settle(running)
        assert await administrators.used() == {login.username}
        assert len(complaints(caplog)) == 2
        await administrators.admit(early)
        await administrators.wait_until_only(early)
    assert "the login before goes on: no longer" in caplog.messages
    assert early.password not in caplog.text


async def test_a_connection_made_after_its_login_was_dropped_uses_what_the_files_hold_by_then(
    config: Config, login: Credentials, administrators: Administrators
) -> None:
    second = Credentials(login.username + "_2", "the second password")
    async with Running(replace(config, look_every=3600.0)) as running:
        await running.wait_until_ready()
        await administrators.admit(second)
        administrators.mount(second)
        await administrators.drop(login.username)
        await settle(running)
        assert await administrators.used() == {second.username}


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        message
        for message in caplog.messages
        if message.startswith("the login before goes on: ") and "no longer" not in message
    ]


async def cut_off(stores: LocalStores, login: Credentials) -> None:
    """End every connection of a login, which may come back at once."""
    async with admin_redis(stores) as client:
        await client.execute_command("CLIENT", "KILL", "USER", login.username)
    admin = await admin_postgres(stores)
    await admin.execute(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = $1", login.username
    )
    await admin.close()


async def settle(running: Running) -> None:
    """Until it is ready, and has written and read by both stores."""
    await running.wait_until_ready()
    async with asyncio.timeout(30):
        while (await running.send("POST", "/v1/agents/z/turns", {"events": [{"content": "still here"}]})).status != 201:
            await asyncio.sleep(0.01)
        while (await running.send("GET", "/v1/agents/z/events")).status != 200:
            await asyncio.sleep(0.01)


async def test_connections_that_nobody_uses_are_replaced_too(
    config: Config, login: Credentials, administrators: Administrators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER", 0.05)
    second = Credentials(login.username + "_2", "the second password")
    async with Running(config, work=False) as running:
        # All four connections to Postgres, and nothing after that.
        await asyncio.gather(*(running.send("GET", f"/v1/agents/{agent}/events") for agent in "abcdefgh"))
        await administrators.admit(second)
        administrators.mount(second)
        await administrators.wait_until_only(second)
