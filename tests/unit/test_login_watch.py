"""When the sidecar moves to what its login files hold, and what it reads from them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.redis import Credentials
from agentmemory_sidecar import watch
from agentmemory_sidecar.credentials import CredentialFiles
from agentmemory_sidecar.watch import LoginWatch
from support.sidecars import write_login


class Looks:
    """A watch whose waits pass at once: each ends when the test takes a step, and moves its clock."""

    def __init__(self, files: CredentialFiles) -> None:
        self.renewals = 0
        self.refusals: dict[str, str] = {}
        self._now = 0.0
        self._watch = LoginWatch(files, ("redis", "postgres"), self._renew, interval=2.0)

    def monotonic(self) -> float:
        return self._now

    async def _renew(self) -> dict[str, str]:
        self.renewals += 1
        return self.refusals

    async def after(self, seconds: float) -> int:
        """Look every two seconds for so long; answer how often a renewal was tried."""
        before = self.renewals
        for _ in range(int(seconds / 2)):
            await self._watch._look()
            self._now += 2.0
        return self.renewals - before


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks(write_login(tmp_path / "files", Credentials("one", "first")))
    monkeypatch.setattr(watch, "time", looks)
    return looks


async def test_nothing_is_renewed_until_the_content_changes(looks: Looks, tmp_path: Path) -> None:
    assert await looks.after(2) == 1
    assert await looks.after(600) == 0
    write_login(tmp_path / "files", Credentials("one", "first"))
    assert await looks.after(600) == 0
    (tmp_path / "files" / "postgres-password").write_text("second")
    assert await looks.after(2) == 1


async def test_a_refused_login_is_tried_again_after_growing_pauses_and_complained_of_once(
    looks: Looks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await looks.after(2)
    looks.refusals = {"redis": "redis: it refused the login"}
    write_login(tmp_path / "files", Credentials("two", "second"))
    assert await looks.after(64) == 6
    assert 1 <= await looks.after(64) <= 2
    write_login(tmp_path / "files", Credentials("three", "third"))
    assert await looks.after(2) == 1
    assert caplog.messages == ["the login before goes on: redis: it refused the login"]
    looks.refusals = {}
    assert await looks.after(4) == 1
    assert await looks.after(600) == 0


async def test_files_that_cannot_be_read_are_no_end_of_the_watch(looks: Looks, tmp_path: Path) -> None:
    await looks.after(2)
    (tmp_path / "files" / "redis-password").unlink()
    assert await looks.after(2) == 1
    assert await looks.after(20) == 0
    (tmp_path / "files" / "redis-password").write_text("second")
    assert await looks.after(2) == 1


async def test_a_failure_of_our_own_does_not_end_the_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    twice = asyncio.Event()
    files = write_login(tmp_path / "files", Credentials("one", "first"))
    calls = 0

    async def fail() -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            twice.set()
        raise RuntimeError("a mistake")

    watching = asyncio.create_task(LoginWatch(files, ("redis", "postgres"), fail, interval=0.001).run())
    await twice.wait()
    watching.cancel()
    await asyncio.wait({watching})
    assert watching.cancelled()
    assert "could not be looked at" in caplog.text


def test_a_login_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_login(tmp_path / "files", Credentials("one", "first"))
    replace_at(monkeypatch, files, 2, lambda: write_login(tmp_path / "files", Credentials("two", "second")))
    assert files.login("redis")() == Credentials("two", "second")


def replace_at(
    monkeypatch: pytest.MonkeyPatch, files: CredentialFiles, read: int, replacement: Callable[[], object]
) -> None:
    """Replace the files before the n-th file is read."""
    reads = 0
    original = CredentialFiles._read

    def counted(self: CredentialFiles, store: str, part: str) -> str:
        nonlocal reads
        reads += 1
        if reads == read:
            replacement()
        return original(self, store, part)

    monkeypatch.setattr(CredentialFiles, "_read", counted)


def test_an_authority_is_trusted_where_its_file_is(tmp_path: Path) -> None:
    files = write_login(tmp_path / "files", Credentials("one", "first"))
    trust = files.trust("postgres")
    assert trust() is None
    path = tmp_path / "files" / "postgres-ca.crt"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    assert trust() == "-----BEGIN CERTIFICATE-----"
    assert files.trust("redis")() is None
    path.write_text("")
    with pytest.raises(StoreUnavailable, match=r"postgres-ca\.crt is empty"):
        trust()
