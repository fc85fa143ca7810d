"""What a sidecar has to know: the AgentMemory in YAML, the environment, and mounted files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from agentmemory_engine.channels import MAX_MESSAGE
from agentmemory_engine.redis import RedisAddress
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.credentials import CredentialFiles
from agentmemory_sidecar.errors import ConfigError
from agentmemory_sidecar.requests import ALLOW_WHOLE
from agentmemory_sidecar.resource import (
    AgentMemory,
    DistillationSpec,
    EmbeddingSpec,
    ExternalPostgres,
    ExternalRedis,
    Spec,
    read_resource,
)
from agentmemory_sidecar.watch import INTERVAL

Number = TypeVar("Number", int, float)
_MAX_BODY = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Config:
    """Times are in seconds, sizes in bytes; a port of 0 is any free one."""

    settings: Settings
    embedding: EmbeddingSpec
    redis: RedisAddress | None
    """None where the mode does without, as `postgres_dsn`."""
    postgres_dsn: str | None
    credentials: CredentialFiles
    distillation: DistillationSpec | None = None
    distillation_tokens: int = 8000
    distillation_timeout: float = 120.0
    distillation_attempts: int = 3
    port: int = 7070
    ops_host: str = "0.0.0.0"
    ops_port: int = 7071
    max_body: int = _MAX_BODY
    agents: tuple[str, ...] = ()
    """Agent ids, or patterns of them, that may be named; empty: any."""
    allow_whole: bool = False
    """Whether agents may be exported and erased though `agents` names none."""
    stop_timeout: float = 20.0
    drain_timeout: float = 600.0
    prepare_timeout: float = 60.0
    look_every: float = INTERVAL
    """How often the mounted logins are looked at."""


def load_config(environment: Mapping[str, str]) -> tuple[Config, Spec]:
    """The configuration, and the spec it came from. Raises ConfigError."""
    path = _required(environment, "AGENTMEMORY_CONFIG", "give the path of an AgentMemory in YAML")
    resource = read_resource(Path(path))
    credentials = CredentialFiles(
        Path(_required(environment, "AGENTMEMORY_CREDENTIALS_DIR", "give the directory of the mounted logins"))
    )
    spec, settings = resource.spec, _settings(resource, environment)
    redis = postgres_dsn = None
    if "redis" in settings.stores:
        url = _redis_url(environment, spec.redis.external)
        redis = RedisAddress(url=url, credentials=credentials.login("redis"), trust=credentials.trust("redis"))
    if "postgres" in settings.stores:
        postgres_dsn = _postgres_dsn(environment, spec.postgres.external)
    config = Config(
        settings=settings,
        embedding=spec.embedding,
        redis=redis,
        postgres_dsn=postgres_dsn,
        credentials=credentials,
        distillation=spec.distillation,
        distillation_tokens=_number(environment, "AGENTMEMORY_DISTILLATION_TOKENS", 8000, 256, 1_000_000),
        distillation_timeout=_number(environment, "AGENTMEMORY_DISTILLATION_TIMEOUT", 120.0, 1.0, 3600.0),
        distillation_attempts=_number(environment, "AGENTMEMORY_DISTILLATION_ATTEMPTS", 3, 1, 100),
        port=_number(environment, "AGENTMEMORY_PORT", spec.sidecar.port, 0, 65_535),
        ops_host=environment.get("AGENTMEMORY_OPS_HOST") or "0.0.0.0",
        ops_port=_number(environment, "AGENTMEMORY_OPS_PORT", spec.sidecar.ops_port, 0, 65_535),
        max_body=_number(
            environment,
            "AGENTMEMORY_MAX_BODY",
            max(_MAX_BODY, 2 * spec.working_memory.max_document_size),
            1024,
            1 << 29,
        ),
        agents=_list(environment.get("AGENTMEMORY_AGENTS")),
        allow_whole=_flag(environment, ALLOW_WHOLE),
        stop_timeout=_number(environment, "AGENTMEMORY_STOP_TIMEOUT", 20.0, 0.5, 3600.0),
        drain_timeout=_number(environment, "AGENTMEMORY_DRAIN_TIMEOUT", 600.0, 0.0, 86_400.0),
        prepare_timeout=_number(environment, "AGENTMEMORY_PREPARE_TIMEOUT", 60.0, 0.0, 3600.0),
    )
    return config, spec


def _settings(resource: AgentMemory, environment: Mapping[str, str]) -> Settings:
    spec = resource.spec
    settings = Settings(
        namespace=resource.metadata.namespace,
        name=resource.metadata.name,
        mode=spec.mode,
        shards=spec.shards,
        ttl=float(spec.working_memory.ttl),
        recent_messages=spec.working_memory.recent_messages,
        max_document_size=int(spec.working_memory.max_document_size),
        max_delay=float(spec.consolidation.max_delay),
        batch_size=spec.consolidation.batch_size,
        retention=None if spec.retention.events is None else float(spec.retention.events),
        history=spec.retention.turns,
        index=spec.recall.index.kind,
        index_m=spec.recall.index.m,
        index_ef_construction=spec.recall.index.ef_construction,
        lease=_number(environment, "AGENTMEMORY_LEASE", 10.0, 0.5, 600.0),
        channel_messages=_number(environment, "AGENTMEMORY_CHANNEL_MESSAGES", 10_000, 1, 1_000_000),
        channel_bytes=_number(environment, "AGENTMEMORY_CHANNEL_BYTES", 32 << 20, MAX_MESSAGE, 1 << 30),
        channel_age=_number(environment, "AGENTMEMORY_CHANNEL_AGE", 604_800.0, 60.0, 31_536_000.0),
        followers=_number(environment, "AGENTMEMORY_FOLLOWERS", 100, 1, 10_000),
    )
    instance = environment.get("AGENTMEMORY_INSTANCE")
    return replace(settings, instance=instance) if instance else settings


def _required(environment: Mapping[str, str], name: str, what: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigError(f"{name} is not set: {what}")
    return value


def _number(environment: Mapping[str, str], name: str, default: Number, low: Number, high: Number) -> Number:
    text = environment.get(name)
    if not text:
        return default
    value: Number
    try:
        value = type(default)(text)
    except ValueError:
        raise ConfigError(f"{name}: {text[:40]!r} is not a number of the kind that {default} is") from None
    if not low <= value <= high:
        raise ConfigError(f"{name}: {text[:40]} is not from {low:g} to {high:g}")
    return value


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "false"
    if text not in ("true", "false"):
        raise ConfigError(f"{name}: {text[:40]!r} is neither true nor false")
    return text == "true"


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in (text or "").split(",")) if part)


def _redis_url(environment: Mapping[str, str], external: ExternalRedis | None) -> str:
    url = environment.get("AGENTMEMORY_REDIS_URL")
    if url:
        return check_redis_url(url)
    if external is None:
        raise ConfigError("AGENTMEMORY_REDIS_URL is not set, and there is no spec.redis.external")
    return f"{'rediss' if external.tls else 'redis'}://{_bracketed(external.host)}:{external.port}"


def check_redis_url(url: str) -> str:
    """Raises ConfigError unless the engine can use this address as it is; the address itself is never shown."""
    name = "AGENTMEMORY_REDIS_URL"
    parts = _split(name, url)
    if parts.username or parts.password:
        raise ConfigError(
            f"{name} carries a login: leave it out, and put it into the files of AGENTMEMORY_CREDENTIALS_DIR"
        )
    if parts.scheme == "unix" and not parts.netloc and parts.path:
        return url
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ConfigError(f"{name} is redis://host:port, rediss://host:port (TLS) or unix:///path")
    if parts.path not in ("", "/", "/0"):
        raise ConfigError(f"{name} names database {parts.path[1:]!r}: only database 0 is used")
    return url


def _postgres_dsn(environment: Mapping[str, str], external: ExternalPostgres | None) -> str:
    dsn = environment.get("AGENTMEMORY_POSTGRES_DSN")
    if dsn:
        return check_postgres_dsn(dsn)
    if external is None:
        raise ConfigError("AGENTMEMORY_POSTGRES_DSN is not set, and there is no spec.postgres.external")
    return (
        f"postgresql://{_bracketed(external.host)}:{external.port}/{quote(external.database, safe='')}"
        f"?sslmode={external.ssl_mode}"
    )


def check_postgres_dsn(dsn: str) -> str:
    """Raises ConfigError unless this is a DSN without a password; the DSN itself is never shown."""
    name = "AGENTMEMORY_POSTGRES_DSN"
    parts = _split(name, dsn)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"{name} is postgresql://host:port/database")
    if parts.password or any(key == "password" for key, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ConfigError(
            f"{name} carries a password: leave it out, and put it into a file of AGENTMEMORY_CREDENTIALS_DIR"
        )
    return dsn


def _split(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"{name} is not an address; special characters in it are percent-encoded") from None
    return parts


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
