"""Redis and Postgres that the user runs: two memories share them, and what keeps them from being used is said in words
that mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.certificates import Authority
from support.cluster import Agent, apply, get, status_of, verify, wait_condition, wait_ready
from support.edits import edit, nudge, patch
from support.external_stores import (
    ADMIN,
    LAX,
    POSTGRES_LOGIN,
    REDIS_LOGIN,
    STEWARD,
    TLS_ONLY,
    ExternalStores,
    login,
    secret,
    start_stores,
)
from support.kubectl import kubectl_json

pytestmark = pytest.mark.cluster


@pytest.fixture
def stores(namespace: str) -> ExternalStores:
    return start_stores(namespace)


def test_two_memories_share_stores_of_the_users_own(namespace: str, stores: ExternalStores) -> None:
    apply(stores.memory("first"), stores.memory("second", redis={"port": TLS_ONLY, "tls": True}))
    said = wait_condition(namespace, "RedisReady", status="False", reason="CertificateRefused", name="second")
    assert "ca.crt" in said["message"]
    apply(secret(namespace, REDIS_LOGIN, {"password": ADMIN, "ca.crt": stores.authority.pem}))
    for name in ("first", "second"):
        wait_ready(namespace, name)
    assert stores.sql(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{STEWARD}'") == "f"
    status = status_of(namespace, "second")
    assert (status["redis"]["host"], status["redis"]["port"]) == (stores.host, TLS_ONLY)
    assert status["redis"]["persistence"] == "appendfsync=everysec"
    assert (status["postgres"]["host"], status["postgres"]["database"]) == (stores.host, "shared")
    run_by_us = kubectl_json("get", "statefulsets,services,pods", "-n", namespace, "-l", "agentmemory.io/memory")
    assert run_by_us["items"] == []
    writer = Agent(namespace, memory="second")
    writer.start()
    writer.wait_for_more(5)
    writer.stop()
    verify(writer)


@dataclass(frozen=True)
class Case:
    """One thing that is wrong: with which condition it is said, in which words, and how it is mended.

    `mend` gets what follows the last colon of the message, which is a statement where there is one to run.
    """

    name: str
    condition: str
    reason: str
    says: str
    mend: Callable[[ExternalStores, str], object]
    redis: dict[str, Any] = field(default_factory=dict)
    postgres: dict[str, Any] = field(default_factory=dict)


def _secret(name: str, members: dict[str, str]) -> Callable[[ExternalStores, str], object]:
    return lambda stores, statement: apply(secret(stores.namespace, name, members))


def _late_service(stores: ExternalStores, _: str) -> None:
    service = get("service", stores.namespace, "stores")
    assert service is not None
    ports = [{"name": one["name"], "port": one["port"]} for one in service["spec"]["ports"]]
    apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "late", "namespace": stores.namespace},
            "spec": {"selector": service["spec"]["selector"], "ports": ports},
        }
    )


def _from(name: str, database: str = "shared") -> dict[str, Any]:
    return {"secretRef": {"name": name}, "database": database}


CASES = (
    Case("lax", "RedisReady", "WrongEvictionPolicy", "maxmemory-policy is allkeys-lru",
         lambda stores, statement: stores.redis(*statement.split(), port=LAX), redis={"port": LAX}),
    Case("redis-password", "RedisReady", "LoginRefused", "correct the password in its Secret",
         _secret("redis-password", {"password": ADMIN}), redis={"secretRef": {"name": "redis-password"}}),
    Case("redis-secret", "RedisReady", "SecretMissing", "Secret redis-secret is not in namespace",
         _secret("redis-secret", {"password": ADMIN}), redis={"secretRef": {"name": "redis-secret"}}),
    Case("redis-key", "RedisReady", "SecretIncomplete", "Secret redis-key lacks password",
         _secret("redis-key", {"password": ADMIN}), redis={"secretRef": {"name": "redis-key"}}),
    Case("redis-host", "RedisReady", "Unreachable", "is the way to it open?", _late_service,
         redis={"host": "late.{namespace}.svc"}),
    Case("redis-rights", "RedisReady", "MissingRights", "ACL SETUSER clerk +acl",
         lambda stores, statement: stores.redis(*statement.split()), redis={"secretRef": {"name": "redis-rights"}}),
    Case("bare", "PostgresReady", "VectorExtensionMissing", "pgvector is not installed",
         lambda stores, statement: stores.sql(statement, "bare"), postgres=_from("bare", "bare")),
    Case("roleless", "PostgresReady", "MissingRights", "cannot make roles",
         lambda stores, statement: stores.sql(statement), postgres=_from("roleless", "roleless")),
    Case("closed", "PostgresReady", "MissingRights", "cannot make a schema",
         lambda stores, statement: stores.sql(statement), postgres=_from("closed", "closed")),
    Case("postgres-password", "PostgresReady", "LoginRefused", "correct the password in its Secret",
         _secret("postgres-password", login(STEWARD)), postgres=_from("postgres-password")),
    Case("postgres-secret", "PostgresReady", "SecretMissing", "Secret postgres-secret is not in namespace",
         _secret("postgres-secret", login(STEWARD)), postgres=_from("postgres-secret")),
    Case("postgres-key", "PostgresReady", "SecretIncomplete", "Secret postgres-key lacks password",
         _secret("postgres-key", login(STEWARD)), postgres=_from("postgres-key")),
    Case("unlisted", "PostgresReady", "AccessForbidden", "pg_hba.conf",
         lambda stores, statement: stores.sql("ALTER ROLE unlisted LOGIN"), postgres=_from("unlisted", "unlisted")),
)  # fmt: skip


def _spoil(stores: ExternalStores) -> None:
    """Databases, logins and Secrets that lack one thing each."""
    stores.make_database("bare", owner="bare", vector=False)
    for name in ("roleless", "closed", "unlisted"):
        stores.make_database(name, owner=name)
    stores.sql("ALTER ROLE roleless NOCREATEROLE")
    stores.sql("REVOKE CREATE ON DATABASE closed FROM closed")
    stores.sql("ALTER ROLE unlisted NOLOGIN")
    stores.redis("ACL", "SETUSER", "clerk", "on", ">clerk", "~*", "&*", "+@all", "-acl", "+acl|whoami")
    apply(
        *(secret(stores.namespace, name, login(name)) for name in ("bare", "roleless", "closed", "unlisted")),
        secret(stores.namespace, "redis-rights", login("clerk")),
        secret(stores.namespace, "redis-password", {"password": "guessed"}),
        secret(stores.namespace, "postgres-password", login(STEWARD, "guessed")),
        secret(stores.namespace, "redis-key", {"username": "default"}),
        secret(stores.namespace, "postgres-key", {"username": STEWARD}),
    )


def _memory(stores: ExternalStores, case: Case) -> dict[str, Any]:
    redis = dict(case.redis)
    if "host" in redis:
        redis["host"] = redis["host"].format(namespace=stores.namespace)
    return stores.memory(case.name, redis=redis, postgres=case.postgres)


def test_what_is_wrong_is_said_and_recovers_once_it_is_mended(namespace: str, stores: ExternalStores) -> None:
    """Nothing but what was wrong is touched: neither the AgentMemory, nor the operator."""
    _spoil(stores)
    apply(*(_memory(stores, case) for case in CASES))
    said = {}
    for case in CASES:
        found = wait_condition(namespace, case.condition, status="False", reason=case.reason, name=case.name)
        assert case.says in found["message"], case.name
        ready = wait_condition(namespace, "Ready", status="False", reason=case.reason, name=case.name)
        assert found["message"] in ready["message"], case.name
        said[case.name] = found["message"]
    for case in CASES:
        case.mend(stores, said[case.name].rpartition(": ")[2])
    for case in CASES:
        wait_ready(namespace, case.name)


STEPS = (("DatabaseMissing", "shared"), ("VectorExtensionMissing", "later"), ("MissingRights", "later"))


def test_a_missing_database_is_made_by_following_what_is_said(namespace: str, stores: ExternalStores) -> None:
    """Each message holds the one statement that leads to the next, and in the end the memory is ready."""
    apply(stores.memory("later", postgres={"database": "later"}))
    for reason, database in STEPS:
        found = wait_condition(namespace, "PostgresReady", status="False", reason=reason, name="later")
        stores.sql(found["message"].rpartition(": ")[2], database)
    wait_ready(namespace, "later")


def test_encryption_that_is_asked_for_and_not_spoken(namespace: str, stores: ExternalStores) -> None:
    """Neither side can say so to the other; the operator finds out. A certificate of somebody else is not taken."""
    stores.sql("ALTER SYSTEM SET ssl = off")
    stores.sql("SELECT pg_reload_conf()")
    other = Authority("another authority").pem
    apply(
        secret(namespace, "sealed-redis", {"password": ADMIN, "ca.crt": other}),
        secret(namespace, "sealed-postgres", login(STEWARD) | {"ca.crt": other}),
        stores.memory("sealed", redis={"tls": True, "secretRef": {"name": "sealed-redis"}},
                      postgres={"sslMode": "require", "secretRef": {"name": "sealed-postgres"}}),
        stores.memory("plain", redis={"port": TLS_ONLY}),
    )  # fmt: skip
    said = wait_condition(namespace, "RedisReady", status="False", reason="TLSNotSpoken", name="sealed")
    assert "name the port on which it does" in said["message"]
    said = wait_condition(namespace, "PostgresReady", status="False", reason="TLSNotSpoken", name="sealed")
    assert "ssl = on" in said["message"]
    said = wait_condition(namespace, "RedisReady", status="False", reason="TLSRequired", name="plain")
    assert "set spec.redis.external.tls to true" in said["message"]
    stores.sql("ALTER SYSTEM SET ssl = on")
    stores.sql("SELECT pg_reload_conf()")
    edit(namespace, "sealed", redis={"external": {"port": TLS_ONLY}})
    for kind in ("RedisReady", "PostgresReady"):
        said = wait_condition(namespace, kind, status="False", reason="CertificateRefused", name="sealed")
        assert "put the authority that signed it into ca.crt of its Secret" in said["message"]
    for name in ("sealed-redis", "sealed-postgres"):
        patch(namespace, "secret", name, {"stringData": {"ca.crt": stores.authority.pem}})
    edit(namespace, "plain", redis={"external": {"tls": True, "secretRef": {"name": "sealed-redis"}}})
    for name in ("sealed", "plain"):
        wait_ready(namespace, name)


def test_a_secret_that_changes_later_is_followed(namespace: str, stores: ExternalStores) -> None:
    """While the administrator is locked out, the sidecars' own logins go on."""
    apply(stores.memory("followed"))
    wait_ready(namespace, "followed")
    stores.sql(f"ALTER ROLE {STEWARD} PASSWORD 'another'")
    nudge(namespace, "followed")
    wait_condition(namespace, "PostgresReady", status="False", reason="LoginRefused", name="followed")
    assert status_of(namespace, "followed")["consolidation"]["pending"] == 0
    patch(namespace, "secret", POSTGRES_LOGIN, {"stringData": {"password": "another\n"}})
    wait_ready(namespace, "followed")
