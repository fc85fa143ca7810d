"""Memories in one namespace cannot read each other with the credentials they hold: by API, by SQL, by Redis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from agentmemory_engine.keys import Keys
from support.cluster import Agent, apply, memory_manifest, read_timeline, wait_for, wait_ready
from support.edits import secret_of
from support.external_stores import ExternalStores, start_stores
from support.kubectl import KubectlError, kubectl

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Held:
    """What a sidecar of a memory holds, and what it calls its own."""

    keys: Keys
    credentials: dict[str, str] = field(repr=False)

    @property
    def redis(self) -> tuple[str, str]:
        return self.credentials["redis-username"], self.credentials["redis-password"]

    @property
    def postgres(self) -> tuple[str, str]:
        return self.credentials["postgres-username"], self.credentials["postgres-password"]


def held(namespace: str, memory: str) -> Held:
    return Held(Keys(namespace, memory), secret_of(namespace, f"{memory}-credentials"))


@pytest.fixture
def stores(namespace: str) -> ExternalStores:
    return start_stores(namespace)


def refusal(ask: Callable[..., str], *arguments: str) -> str:
    """What is answered, be it by a failure."""
    try:
        return ask(*arguments)
    except KubectlError as error:
        return str(error)


def test_two_memories_in_the_same_stores_see_nothing_of_each_other(namespace: str, stores: ExternalStores) -> None:
    """Both have an agent of the same name. Whatever one login can do to its own memory, it cannot to the other."""
    apply(stores.memory("ours"), stores.memory("theirs"))
    for name in ("ours", "theirs"):
        wait_ready(namespace, name)
    writer = Agent(namespace, memory="theirs")
    writer.start()
    assert read_timeline(namespace, "writer", "ours") == []
    writer.stop()
    ours, theirs = held(namespace, "ours"), held(namespace, "theirs")
    _check_sql(stores, ours, theirs)
    _check_redis(stores, ours, theirs)


def _check_sql(stores: ExternalStores, ours: Held, theirs: Held) -> None:
    user, password = ours.postgres

    def ask(statement: str) -> str:
        return stores.sql_as(user, password, statement)

    tables = stores.sql(f"SELECT tablename FROM pg_tables WHERE schemaname = '{theirs.keys.schema}'").split()
    assert {"memory_events", "identity", "dead_letters"} <= set(tables)
    assert int(stores.sql(f"SELECT count(*) FROM {theirs.keys.schema}.memory_events")) > 0
    assert ask(f"SELECT count(*) FROM {ours.keys.schema}.memory_events") == "0"
    for table in tables:
        assert "permission denied for schema" in refusal(ask, f"SELECT * FROM {theirs.keys.schema}.{table}"), table
    for role in (f"{theirs.keys.schema}_app", f"{theirs.keys.schema}_owner", theirs.postgres[0], "steward", "postgres"):
        assert "permission denied to set role" in refusal(ask, f"SET ROLE {role}"), role
    for statement, says in (
        (f"DELETE FROM {theirs.keys.schema}.memory_events", "permission denied for schema"),
        (f"DROP SCHEMA {theirs.keys.schema} CASCADE", "must be owner"),
        (f"ALTER ROLE {theirs.postgres[0]} PASSWORD 'mine'", "permission denied"),
        (f"CREATE TABLE {ours.keys.schema}.extra ()", "permission denied for schema"),
        ("CREATE SCHEMA mine", "permission denied for database"),
        ("CREATE ROLE mine", "permission denied to create role"),
        ("SELECT rolpassword FROM pg_authid", "permission denied"),
    ):
        assert says in refusal(ask, statement), statement


def _check_redis(stores: ExternalStores, ours: Held, theirs: Held) -> None:
    user, password = ours.redis

    def ask(*command: str) -> str:
        return stores.redis_as(user, password, *command)

    there = stores.redis("--scan", "--pattern", f"{theirs.keys.prefix}*").split()
    assert len(there) > 3
    assert ask("PING") == "PONG"
    assert ask("EXISTS", ours.keys.identity) == "1"
    key = theirs.keys.identity
    assert key in there
    foreign: tuple[tuple[str, ...], ...] = (
        ("GET", key), ("SET", key, "mine"), ("DEL", key), ("EXISTS", key), ("EXISTS", ours.keys.identity, key),
        ("DUMP", key),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", key),
        ("EVAL", f"return redis.call('GET', '{key}')", "0"),
        ("EVAL", f"return redis.call('GET', '{key}')", "1", ours.keys.identity),
    )  # fmt: skip
    unlisted: tuple[tuple[str, ...], ...] = (
        ("SCAN", "0"), ("KEYS", "*"), ("RANDOMKEY",), ("DBSIZE",), ("ACL", "LIST"), ("ACL", "GETUSER", theirs.redis[0]),
        ("ACL", "SETUSER", user, "~*"), ("CONFIG", "GET", "*"), ("MONITOR",), ("FLUSHALL",), ("CLIENT", "LIST"),
        ("SWAPDB", "0", "1"), ("SUBSCRIBE", "any"), ("PUBLISH", "any", "thing"), ("FUNCTION", "LIST"), ("SHUTDOWN",),
        ("OBJECT", "HELP"), ("RENAME", ours.keys.identity, key),
        ("COPY", key, ours.keys.identity), ("EVAL", "return redis.call('SCAN', '0')", "0"),
    )  # fmt: skip
    for command in (*foreign, *unlisted):
        answer = ask(*command)
        assert answer.startswith("NOPERM") or "ACL failure in script" in answer, (command, answer)
    assert set(stores.redis("--scan", "--pattern", f"{theirs.keys.prefix}*").split()) == set(there)


def test_a_login_of_one_memory_is_none_in_the_stores_of_another(namespace: str) -> None:
    """Managed stores of two memories in one namespace: each has its own, with its own administrator and authority."""
    apply(memory_manifest(namespace, "ours"), memory_manifest(namespace, "theirs"))
    for name in ("ours", "theirs"):
        wait_ready(namespace, name)
    writer = Agent(namespace, memory="theirs")
    writer.start()
    ours, theirs = held(namespace, "ours"), held(namespace, "theirs")
    assert read_timeline(namespace, "writer", "ours") == []
    own = secret_of(namespace, "ours-postgres-admin")["password"]
    for user, password in (ours.postgres, ("postgres", own)):
        assert "password authentication failed" in refusal(_psql, namespace, "theirs", user, password)
    assert _psql(namespace, "theirs", *theirs.postgres) == "1"
    for user, password in (ours.redis, ("operator", secret_of(namespace, "ours-redis-admin")["password"])):
        assert "NOAUTH" in refusal(_redis, namespace, "theirs", user, password)
    assert "NOAUTH" in refusal(_redis, namespace, "theirs", "", "")
    assert _redis(namespace, "theirs", *theirs.redis) == "PONG"
    authorities = {secret_of(namespace, f"{name}-ca")["tls.crt"] for name in ("ours", "theirs")}
    assert len(authorities) == 2
    wait_for("the turns to go on", lambda: len(writer.acknowledged) > 3)


def _psql(namespace: str, memory: str, user: str, password: str) -> str:
    """A login over the network, with TLS, as from any pod that is let through."""
    dsn = f"host={memory}-postgres port=5432 dbname=agentmemory user={user} sslmode=require"
    return kubectl(
        "exec", "--namespace", namespace, f"{memory}-postgres-0", "--", "env", f"PGPASSWORD={password}",
        "psql", dsn, "-XqtA", "-c", "SELECT 1",
    ).strip()  # fmt: skip


def _redis(namespace: str, memory: str, user: str, password: str) -> str:
    login = ("--user", user, "--pass", password, "--no-auth-warning") if user else ()
    return kubectl(
        "exec", "--namespace", namespace, f"{memory}-redis-0", "--", "redis-cli", "--tls", "--insecure",
        "-h", f"{memory}-redis", *login, "PING",
    ).strip()  # fmt: skip
