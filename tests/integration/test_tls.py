"""TLS to both stores: what the mounted authority vouches for is used, and nothing else; a new one needs no restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Credentials, Redis, RedisAddress
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.errors import GaveUp
from agentmemory_sidecar.prepare import Administrators, prepare
from support.certificates import Authority
from support.sidecars import Running, make_config, write_login
from support.tls_front import HOST, Front, fronts


@dataclass
class Secured:
    """A sidecar's configuration for stores behind TLS, whose certificates come from `authority`."""

    redis: Front
    postgres: Front
    config: Config
    administrators: Administrators

    def show(self, authority: Authority, address: str = HOST) -> None:
        for front in (self.redis, self.postgres):
            front.show(authority, address)

    def mount(self, authority: str) -> None:
        for store in ("redis", "postgres"):
            (self.config.credentials.directory / f"{store}-ca.crt").write_text(authority)

    async def ask_redis(self, port: int | None = None) -> None:
        """On a connection of its own. Raises StoreUnavailable."""
        assert self.config.redis is not None
        redis = Redis(replace(self.config.redis, url=f"rediss://{HOST}:{port or self.redis.port}"))
        try:
            await redis.execute("PING")
        finally:
            await redis.close()

    async def ask_postgres(self, sslmode: str = "verify-full") -> None:
        """On a connection of its own. Raises StoreUnavailable."""
        files = self.config.credentials
        assert self.config.postgres_dsn is not None
        dsn = self.config.postgres_dsn.replace("verify-full", sslmode)
        schema = self.config.settings.keys.schema
        postgres = Postgres(dsn, files.login("postgres"), schema=schema, trust=files.trust("postgres"))
        await postgres.open()
        try:
            await postgres.fetchrow("ping")
        finally:
            await postgres.close()


@pytest.fixture
async def secured(stores: LocalStores, settings: Settings, tmp_path: Path) -> AsyncIterator[Secured]:
    """Prepared, with the authority mounted."""
    files = write_login(tmp_path / "credentials", Credentials(settings.keys.schema + "_1", "of a test"))
    redis, postgres = fronts(stores, tmp_path)
    async with redis.listening(), postgres.listening():
        url, login = f"rediss://{HOST}:{redis.port}", files.login("redis")
        config = make_config(
            stores,
            settings,
            files,
            redis=RedisAddress(url=url, credentials=login, trust=files.trust("redis")),
            postgres_dsn=f"postgresql://{HOST}:{postgres.port}/agentmemory?sslmode=verify-full",
        )
        administrators = Administrators(
            Credentials(stores.redis_admin_user, stores.redis_admin_password),
            Credentials("postgres", stores.postgres_admin_password),
        )
        secured, authority = Secured(redis, postgres, config, administrators), Authority()
        secured.show(authority)
        secured.mount(authority.pem)
        await prepare(config, administrators)
        yield secured


REFUSED = r"^(redis|postgres): its certificate is refused \(.+\); check the authority"


async def test_a_sidecar_works_over_tls(secured: Secured) -> None:
    async with Running(secured.config) as running:
        await running.wait_until_ready()
        receipt = await running.turn("a", "said over TLS")
        await running.wait("a", receipt["position"])


async def test_a_server_that_another_authority_vouches_for_is_refused(secured: Secured) -> None:
    secured.mount(Authority().pem)
    with pytest.raises(StoreUnavailable, match=REFUSED):
        await secured.ask_redis()
    for sslmode in ("require", "verify-ca", "verify-full"):
        with pytest.raises(StoreUnavailable, match=REFUSED):
            await secured.ask_postgres(sslmode)
    with pytest.raises(GaveUp, match="Postgres did not come up in time: its certificate is refused"):
        await prepare(replace(secured.config, prepare_timeout=0.1), secured.administrators)


async def test_without_an_authority_the_systems_own_vouch_for_no_such_server(secured: Secured) -> None:
    for path in secured.config.credentials.directory.glob("*-ca.crt"):
        path.unlink()
    with pytest.raises(StoreUnavailable, match=REFUSED):
        await secured.ask_redis()
    for sslmode in ("verify-ca", "verify-full"):
        with pytest.raises(StoreUnavailable, match=REFUSED):
            await secured.ask_postgres(sslmode)
    await secured.ask_postgres("require")


async def test_what_is_no_certificate_is_said_to_be_none(secured: Secured) -> None:
    secured.mount("not a certificate")
    for ask in (secured.ask_redis, secured.ask_postgres):
        with pytest.raises(StoreUnavailable, match="TLS fails"):
            await ask()


async def test_the_name_counts_where_it_is_to_be_verified(secured: Secured) -> None:
    authority = Authority()
    secured.show(authority, "127.0.0.2")
    secured.mount(authority.pem)
    await secured.ask_postgres("verify-ca")
    for ask in (secured.ask_redis, secured.ask_postgres):
        with pytest.raises(StoreUnavailable, match=r"its certificate is refused \(.*mismatch.*\)"):
            await ask()


async def test_a_server_that_does_not_speak_tls_is_said_not_to(secured: Secured) -> None:
    # The one in front of Postgres waits for something that no handshake begins with.
    with pytest.raises(StoreUnavailable, match="redis: "):
        await secured.ask_redis(secured.postgres.port)


async def test_new_connections_trust_the_authority_that_the_file_holds_by_then(secured: Secured) -> None:
    async with Running(secured.config) as running:
        await running.wait_until_ready()
        authority = Authority()
        secured.show(authority)
        assert (await running.send("GET", "/v1/agents/a/events")).status == 200
        for front in (secured.redis, secured.postgres):
            front.hang_up()
        assert (await running.send("GET", "/v1/agents/a/working-memory")).code == "store-unavailable"
        secured.mount(authority.pem)
        await running.wait_until_ready()
        await running.turn("a", "said over TLS")
        assert (await running.send("GET", "/v1/agents/a/events")).status == 200
