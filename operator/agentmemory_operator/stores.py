"""The steps that leave the stores ready for the sidecars: running, fit, with logins and schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any

import asyncpg

from agentmemory_engine import administration, preflight, schema
from agentmemory_engine.errors import ForeignStore, SchemaMismatch
from agentmemory_engine.redis import Credentials
from agentmemory_operator import certificates, conditions, logins
from agentmemory_operator.connections import POSTGRES_PREAMBLE, postgres_admin, redis_admin, served_certificate
from agentmemory_operator.errors import Blocked, Waiting
from agentmemory_operator.identities import (
    check_nothing_is_left_behind,
    check_postgres,
    check_redis,
    keep_redis_alone,
)
from agentmemory_operator.kube import POD, SECRET
from agentmemory_operator.names import child
from agentmemory_operator.providers import postgres as postgres_providers
from agentmemory_operator.providers import redis as redis_providers
from agentmemory_operator.providers.managed import restart_pod
from agentmemory_operator.work import Access, Work, stamp

_RELOAD_PAUSE = 10.0
_MIGRATION = 600.0
"""Seconds for one statement of a migration."""


async def tend_redis(work: Work) -> None:
    """Redis runs, is fit to keep memory, and takes the sidecars' logins. Raises OperatorFault."""
    access = await redis_providers.choose(work.memory.spec.redis).provide(work)
    managed = work.memory.spec.redis.managed is not None
    async with _mending(work, access, "redis"), redis_admin(access) as client:
        if managed and not work.frozen:
            await _keep_policy(client)
        facts = await preflight.examine_redis(client)
        _raise_first(preflight.problems_of(facts))
        if "postgres" in work.stores:
            check_redis(work, await administration.read_identity(client, work.settings.keys))
        else:
            await keep_redis_alone(work, client)
        await _drop_retired(work, "redis", lambda name: administration.drop_login(client, name))
        await _set_redis_logins(work, client)
        if access.certificate:
            await _reload(work, access, "redis", lambda: _reload_redis(client))
    work.status["redis"] = {
        "host": access.address.host, "port": access.address.port,
        "version": f"{facts.flavour} {facts.version}", "persistence": facts.persistence,
    }  # fmt: skip
    work.serving.add("redis")
    lost = "what is not in Postgres yet" if "postgres" in work.stores else "all of this memory"
    said = "" if facts.append_only else f" It keeps no append-only file: a restart loses {lost}."
    work.say(conditions.REDIS, "True", "Serving", f"{facts.flavour} {facts.version}, {facts.persistence}.{said}")


async def tend_postgres(work: Work) -> None:
    """Postgres runs, is fit, and takes the sidecars' logins. Raises OperatorFault."""
    access = await postgres_providers.choose(work.memory.spec.postgres).provide(work)
    name = work.settings.keys.schema
    if work.memory.spec.postgres.managed is not None and not work.frozen:
        async with _mending(work, access, "postgres"):
            await _ensure_database(access)
    async with _mending(work, access, "postgres"), postgres_admin(access) as admin:
        facts = await preflight.examine_postgres(admin, name)
        _raise_first(preflight.problems_of(facts))
        try:
            await _keep_postgres_logins(work, admin)
        except ForeignStore as error:
            work.say(conditions.SCHEMA, "False", "IdentityMismatch", str(error))
        except asyncpg.PostgresError as error:
            raise Blocked("PostgresRefused", f"Postgres refuses to make roles and schema: {error}") from error
        if access.certificate:
            await _reload(work, access, "postgres", lambda: admin.execute("SELECT pg_reload_conf()"))
    work.status["postgres"] = {
        "host": access.address.host, "port": access.address.port, "database": access.address.database, "schema": name,
        "version": facts.version, "vectorVersion": facts.vector_installed or facts.vector_available,
    }  # fmt: skip
    work.serving.add("postgres")
    vector = facts.vector_installed or facts.vector_available
    work.say(conditions.POSTGRES, "True", "Serving", f"PostgreSQL {facts.version}, pgvector {vector}.")


async def _keep_postgres_logins(work: Work, admin: asyncpg.Connection[Any]) -> None:
    """In a Postgres that holds this memory, or none yet. Raises Blocked, ForeignStore."""
    name = work.settings.keys.schema
    try:
        work.identity = await schema.read_identity(admin, work.settings)
    except asyncpg.InsufficientPrivilegeError:
        # An administrator of another name than before gets the right to look with the first login that he makes.
        work.memo.postgres_logins = ()
    else:
        check_postgres(work)
    await _drop_retired(work, "postgres", lambda login: schema.drop_login(admin, name, login))
    await _set_postgres_logins(work, admin)
    work.identity = await schema.read_identity(admin, work.settings)
    check_postgres(work)


async def tend_schema(work: Work) -> None:
    """The schema is the one of this version. A migration that fails leaves the former one serving.

    Raises OperatorFault.
    """
    if "postgres" not in work.serving or work.postgres is None:
        raise Waiting("WaitingForPostgres", "Postgres is not ready.")
    async with postgres_admin(work.postgres, patience=_MIGRATION) as admin:
        try:
            if not work.frozen:
                check_nothing_is_left_behind(work)
                await schema.migrate(admin, work.settings)
            work.identity = await schema.read_identity(admin, work.settings)
            version, applied_at = await schema.applied_version(admin, work.settings.keys.schema)
        except ForeignStore as error:
            raise Blocked("IdentityMismatch", str(error)) from error
        except SchemaMismatch as error:
            raise Blocked("SchemaMismatch", str(error)) from error
        except asyncpg.PostgresError as error:
            raise Blocked(
                "MigrationFailed", f"The former schema goes on serving: {type(error).__name__}: {error}"
            ) from error
    work.status["schema"] = {"version": version, "appliedAt": stamp(applied_at)}
    work.serving.add("schema")
    work.say(conditions.SCHEMA, "True", "UpToDate", f"Migration {version} is applied.")


async def _ensure_database(access: Access) -> None:
    """Make the database of a managed Postgres. Raises OperatorFault."""
    async with postgres_admin(access, "postgres") as admin:
        name = access.address.database
        if await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name) is None:
            await admin.execute(f'CREATE DATABASE "{name}"')


async def _keep_policy(client: Any) -> None:
    """A managed Redis never evicts, whoever set it otherwise."""
    if (await client.config_get("maxmemory-policy")).get("maxmemory-policy") != "noeviction":
        await client.config_set("maxmemory-policy", "noeviction")


async def _set_redis_logins(work: Work, client: Any) -> None:
    wanted = [one.redis for one in _logins(work, "redis")]
    users = await administration.find_users(client)
    mark = (*users.runs, *(_digest(one) for one in wanted))
    pair = logins.pair(work.settings.keys.schema)
    await _drop_unknown(work, users.anywhere & pair, lambda username: administration.drop_login(client, username))
    if work.frozen or (work.memo.redis_logins == mark and {one.username for one in wanted} <= users.everywhere):
        return
    for login in wanted:
        await administration.set_login(client, work.settings.keys, login)
    work.memo.redis_logins = mark


async def _drop_unknown(work: Work, there: Iterable[str], drop: Callable[[str], Awaitable[None]]) -> None:
    """Drop a login whose password nobody has: its Secret was lost and made anew, longer ago than the grace."""
    if work.frozen or not work.logins_since:
        return
    age = (work.clock() - datetime.fromisoformat(work.logins_since)).total_seconds()
    known = logins.usernames(work.logins)
    if age > work.config.rotation_grace:
        for username in set(there) - known:
            await drop(username)


async def _set_postgres_logins(work: Work, admin: asyncpg.Connection[Any]) -> None:
    name = work.settings.keys.schema
    wanted = [one.postgres for one in _logins(work, "postgres")]
    mark = tuple(_digest(one) for one in wanted)
    # Others may have been given the same rights by hand: they are not the operator's.
    there = set(await schema.find_logins(admin, name)) & logins.pair(name)
    await _drop_unknown(work, there, lambda username: schema.drop_login(admin, name, username))
    if work.frozen or (work.memo.postgres_logins == mark and {one.username for one in wanted} <= there):
        return
    for login in wanted:
        await schema.provision(admin, name, login)
    work.memo.postgres_logins = mark


def _logins(work: Work, store: str) -> list[logins.Logins]:
    """The logins that this store has to take from now on."""
    if not work.logins:
        return []
    return (logins.lasting if store in work.dropped else logins.all_of)(work.logins, work.stores)


def _digest(login: Credentials) -> str:
    return sha256(f"{login.username}:{login.password}".encode()).hexdigest()


async def _drop_retired(work: Work, store: str, drop: Callable[[str], Awaitable[None]]) -> None:
    """Drop the former login, once the sidecars have had time to leave it."""
    left = logins.remaining(work.logins, work.clock(), work.config.rotation_grace)
    if left is None or work.frozen:
        return
    if left > 0:
        work.soon(left + 1.0)
        return
    await drop(logins.retired(work.logins, store))
    work.dropped.add(store)


async def _reload_redis(client: Any) -> None:
    # Set to what they are: that alone makes Redis read the files again.
    files = await client.config_get("tls-*-file")
    await client.execute_command(
        "CONFIG", "SET", "tls-cert-file", files["tls-cert-file"], "tls-key-file", files["tls-key-file"],
        "tls-ca-cert-file", files["tls-ca-cert-file"],
    )  # fmt: skip


async def _reload(work: Work, access: Access, store: str, reload: Callable[[], Awaitable[object]]) -> None:
    """Have a managed store show the certificate that its Secret holds: the kubelet takes a while to bring it."""
    if work.frozen or not await _shows_another(access, store):
        return
    await reload()
    if await _shows_another(access, store):
        work.progress(f"{store} will show its new certificate", again=_RELOAD_PAUSE)


async def _shows_another(access: Access, store: str) -> bool:
    preamble = POSTGRES_PREAMBLE if store == "postgres" else b""
    shown = await served_certificate(access, preamble=preamble)
    assert access.certificate is not None
    return shown is not None and certificates.fingerprint(shown) != certificates.fingerprint(access.certificate)


@asynccontextmanager
async def _mending(work: Work, access: Access, store: str) -> AsyncIterator[None]:
    """A managed store whose certificate ran out, or whose Secrets were lost and made anew, while nobody looked: it
    starts again with what they hold now."""
    try:
        yield
    except Blocked as fault:
        if not access.certificate:
            raise
        if fault.reason == "CertificateRefused" and await _shows_another(access, store):
            renewing = Waiting("CertificateRenewing", f"{store} starts anew with a certificate that is valid.")
        elif fault.reason == "LoginRefused" and await _started_before_its_login(work, store):
            renewing = Waiting("LoginRenewing", f"{store} starts anew with the administrator's login in its Secret.")
        else:
            raise
        await restart_pod(work, child(work.memory.name, store))
        raise renewing from fault


async def _started_before_its_login(work: Work, store: str) -> bool:
    """Whether the pod is older than what stands in the Secret of its administrator: else a new one is no better."""
    name = child(work.memory.name, store)
    secret = await work.objects.get(SECRET, f"{name}-admin")
    pod = await work.kube.get(POD, work.memory.namespace, f"{name}-0")
    if secret is None or pod is None:
        return False
    metadata = secret["metadata"]
    written = [metadata["creationTimestamp"], *(one.get("time", "") for one in metadata.get("managedFields", []))]
    # All in UTC and of one form, so that they compare as text.
    return bool(pod["metadata"]["creationTimestamp"] < max(written))


def _raise_first(problems: Iterable[preflight.Problem]) -> None:
    for problem in problems:
        raise Blocked(problem.reason, problem.message)
