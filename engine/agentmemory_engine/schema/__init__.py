"""The schema in Postgres: who may do what, and the numbered migrations.

Migrations are additive and transactional, run under an advisory lock, and are checksummed; each says, as `min_sidecar`,
which sidecars can still work after it. Only an older sidecar refuses to run.
"""

from __future__ import annotations

import hmac
import os
import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from hashlib import pbkdf2_hmac, sha256
from importlib.metadata import version as distribution_version
from importlib.resources import files
from typing import Any

import asyncpg

from agentmemory_engine.errors import ForeignStore, SchemaMismatch
from agentmemory_engine.postgres import Session, identifier, literal
from agentmemory_engine.redis import Credentials
from agentmemory_engine.settings import Settings

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_MIN_SIDECAR = re.compile(r"^-- min_sidecar: (\d+\.\d+\.\d+)$", re.MULTILINE)
_ROUNDS = 4096
_RECORD = """
CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
    version      integer PRIMARY KEY,
    name         text NOT NULL,
    checksum     text NOT NULL,
    min_sidecar  text NOT NULL,
    applied_at   timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True)
class Migration:
    """One numbered step. `text` still holds `{schema}`."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()

    @property
    def min_sidecar(self) -> str:
        match = _MIN_SIDECAR.search(self.text)
        if match is None:
            raise ValueError(f"migration {self.version} does not say its min_sidecar")
        return match[1]


def load_migrations() -> list[Migration]:
    """All migrations of this version, in order."""
    found = [
        Migration(int(match[1]), match[2], entry.read_text())
        for entry in files(__name__).iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def release_of(text: str) -> tuple[int, ...]:
    """`0.1.0` as numbers; what follows the third one (a development suffix) does not count."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


async def provision(admin: asyncpg.Connection[Any], schema: str, login: Credentials) -> None:
    """Make the extension, the roles, the schema and this login, as an administrator; what is there stays.

    The owner role migrates; the application role, which logins inherit, only reads and writes rows. The administrator
    needs CREATEROLE, CREATE on the database and, where pgvector is not installed yet, the right to install it.
    """
    async with admin.transaction():
        await _lock(admin, schema)
        await admin.execute(_statement(admin, "provision", schema, login.username))
        verifier = literal(scram_verifier(login.password))
        await admin.execute(f"ALTER ROLE {identifier(login.username)} LOGIN PASSWORD {verifier}")


async def find_logins(admin: asyncpg.Connection[Any], schema: str) -> list[str]:
    """The names of the logins that were provisioned for this schema."""
    rows = await admin.fetch(_read("logins"), f"{schema}_app")
    return sorted(row["username"] for row in rows)


async def drop_login(admin: asyncpg.Connection[Any], schema: str, username: str) -> None:
    """End a login and its sessions; a role that is no login of this schema stays, whatever its name."""
    async with admin.transaction():
        await _lock(admin, schema)
        if username not in await find_logins(admin, schema):
            return
        # In a transaction of its own: all know it before the sessions end, so that none begins in between.
        await admin.execute(f"ALTER ROLE {identifier(username)} NOLOGIN")
    await admin.execute(_statement(admin, "drop_login", schema, username))


async def unprovision(admin: asyncpg.Connection[Any], schema: str) -> None:
    """Delete the schema with all its data, its logins and roles; the extension stays. Harmless when repeated."""
    for username in await find_logins(admin, schema):
        await drop_login(admin, schema, username)
    async with admin.transaction():
        await _lock(admin, schema)
        await admin.execute(_statement(admin, "unprovision", schema))


def _statement(admin: asyncpg.Connection[Any], name: str, schema: str, login: str = "") -> str:
    """The text of `<name>.sql` for this schema and login."""
    names = {"schema": schema, "owner": f"{schema}_owner", "application": f"{schema}_app", "login": login}
    statement = _read(name)
    for placeholder, value in names.items():
        statement = statement.replace(f"{{{placeholder}_literal}}", literal(value))
        statement = statement.replace(f"{{{placeholder}}}", identifier(value))
    return statement.replace("{act_as}", literal("SET" if admin.get_server_version().major >= 16 else "MEMBER"))


def _read(name: str) -> str:
    return files(__name__).joinpath(f"{name}.sql").read_text()


async def _lock(connection: asyncpg.Connection[Any], schema: str) -> None:
    """Keep others from changing the schema and its roles until the end of the transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", schema)


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """What Postgres keeps of a password (RFC 5803), so that it never stands in a statement, or in a log of them."""
    salt = salt or os.urandom(16)
    salted = pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = (b64encode(part).decode() for part in (salt, sha256(client_key).digest(), server_key))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ROUNDS, *parts)


async def migrate(connection: asyncpg.Connection[Any], settings: Settings) -> list[Migration]:
    """Bring the schema up to date, as its owner (or an administrator); answer what was applied.

    Raises SchemaMismatch when an applied migration is not the one this version knows, ForeignStore when the schema
    belongs to another AgentMemory or has another number of shards.
    """
    schema = identifier(settings.keys.schema)
    applied: list[Migration] = []
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {identifier(settings.keys.schema + '_owner')}")
        await _lock(connection, settings.keys.schema)
        await connection.execute(_RECORD.replace("{schema}", schema))
        rows = await connection.fetch(f"SELECT version, name, checksum FROM {schema}.schema_migrations")
        known = {row["version"]: row["checksum"] for row in rows}
        for migration in load_migrations():
            if migration.version in known:
                _check_same(migration, known[migration.version])
                continue
            await connection.execute(migration.text.replace("{schema}", schema))
            await connection.execute(
                f"INSERT INTO {schema}.schema_migrations (version, name, checksum, min_sidecar)"
                " VALUES ($1, $2, $3, $4)",
                migration.version, migration.name, migration.checksum, migration.min_sidecar,
            )  # fmt: skip
            applied.append(migration)
        await _record_identity(connection, schema, settings)
    return applied


async def applied_version(connection: asyncpg.Connection[Any], schema: str) -> tuple[int, datetime]:
    """The last migration of this schema, and when it was applied. Raises SchemaMismatch where there is none."""
    try:
        row = await connection.fetchrow(_statement(connection, "version", schema))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        row = None
    if row is None:
        raise SchemaMismatch("The schema is not there yet; it is made by the operator, or by `prepare`.")
    return row["version"], row["applied_at"]


async def read_identity(connection: asyncpg.Connection[Any], settings: Settings) -> str | None:
    """The id in the identity record; None where there is no schema yet. Raises ForeignStore."""
    try:
        found = await connection.fetchrow(f"SELECT * FROM {identifier(settings.keys.schema)}.identity")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    return str(check_owner(found, settings)["id"])


def _check_same(migration: Migration, checksum: str) -> None:
    if migration.checksum != checksum:
        raise SchemaMismatch(
            f"Migration {migration.version} was applied with another text than this version has; "
            "run the version that applied it, or restore the schema."
        )


async def _record_identity(connection: asyncpg.Connection[Any], schema: str, settings: Settings) -> None:
    await connection.execute(
        f"INSERT INTO {schema}.identity (namespace, name, mode, shards)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        settings.namespace, settings.name, settings.mode, settings.shards,
    )  # fmt: skip
    check_owner(await connection.fetchrow(f"SELECT * FROM {schema}.identity"), settings)
    await connection.execute(
        f"INSERT INTO {schema}.shards (shard) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING", settings.shards
    )


def check_owner(identity: Any, settings: Settings) -> Any:
    """Answer the identity record. Raises ForeignStore unless it is this AgentMemory's."""
    if identity is None or (identity["namespace"], identity["name"]) != (settings.namespace, settings.name):
        raise ForeignStore("The schema in Postgres belongs to another AgentMemory; give it its own database or name.")
    if identity["shards"] != settings.shards:
        raise ForeignStore(
            f"The memory was made with {identity['shards']} shards, and {settings.shards} are configured; "
            f"the number cannot change, set `shards: {identity['shards']}`."
        )
    if identity["mode"] != settings.mode:
        raise ForeignStore(
            f"The memory was made in mode {identity['mode']}, and {settings.mode} is configured, which looks for "
            f"it in another place. Set `mode: {identity['mode']}`, or export its agents into a new memory."
        )
    return identity


async def check_schema(session: Session, settings: Settings) -> str:
    """Check that this version can work with the schema there is; answer the memory's identity.

    Raises SchemaMismatch or ForeignStore.
    """
    schema = identifier(settings.keys.schema)
    try:
        rows = await session.fetch(f"SELECT version, min_sidecar FROM {schema}.schema_migrations ORDER BY version")
        identity = await session.fetchrow(f"SELECT * FROM {schema}.identity")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        raise SchemaMismatch("The schema is not there yet; it is made by the operator, or by `prepare`.") from None
    identity = check_owner(identity, settings)
    check_release({row["version"]: row["min_sidecar"] for row in rows}, distribution_version("agentmemory"))
    return str(identity["id"])


def check_release(applied: dict[int, str], release: str) -> None:
    """`applied` is min_sidecar by version. Raises SchemaMismatch when `release` is too old for it, or too new."""
    missing = [migration.version for migration in load_migrations() if migration.version not in applied]
    if missing:
        raise SchemaMismatch(f"Migration {missing[0]} is not applied yet; run `prepare`, or let the operator do it.")
    needed = max(applied.values(), key=release_of)
    if release_of(needed) > release_of(release):
        raise SchemaMismatch(f"The schema needs agentmemory {needed} or newer, and this is {release}; upgrade it.")
