"""The `AgentMemory` resource, as far as a sidecar reads it. Members it does not know are refused, but for metadata."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from agentmemory_sidecar.errors import ConfigError
from agentmemory_sidecar.quantities import Bytes, Seconds, parse_duration, parse_size

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_TTL = 3650 * 86_400.0
_LONGEST_RETENTION = 36_500 * 86_400.0
_LARGEST_DOCUMENT = 64 << 20

Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class _Part(Struct, kw_only=True, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class Metadata(Struct, kw_only=True, frozen=True):
    """Of the metadata, names only: Kubernetes adds more than is said here."""

    name: str
    namespace: str = "default"


class WorkingMemorySpec(_Part, frozen=True):
    ttl: Seconds = Seconds(3600)
    recent_messages: Annotated[int, Meta(ge=1, le=1000)] = 50
    max_document_size: Bytes = Bytes(1 << 20)


class AlertsSpec(_Part, frozen=True):
    warning_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.5
    critical_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.8


class ConsolidationSpec(_Part, frozen=True):
    max_delay: Seconds = Seconds(5)
    batch_size: Annotated[int, Meta(ge=1, le=10_000)] = 256
    alerts: AlertsSpec = AlertsSpec()


class EmbeddingSpec(_Part, frozen=True):
    provider: Literal["Local", "OpenAI", "None"] = "Local"
    dimensions: Annotated[int, Meta(ge=1, le=4000)] = 384
    path: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    """With the provider Local: the directory of another model."""
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    base_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    secret_ref: dict[str, str] | None = None
    """Given: a key is needed, and is in a mounted file."""


class DistillationSpec(_Part, frozen=True):
    """The server that facts are drawn by: any with the API of OpenAI's chat completions."""

    endpoint: Annotated[str, Meta(min_length=1, max_length=2048)]
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    secret_ref: dict[str, str] | None = None
    """Given: a key is needed, and is in a mounted file."""


class IndexSpec(_Part, frozen=True):
    kind: Literal["Exact", "HNSW"] = "Exact"
    m: Annotated[int, Meta(ge=2, le=100)] = 16
    ef_construction: Annotated[int, Meta(ge=4, le=1000)] = 128


class RecallSpec(_Part, frozen=True):
    distance: Literal["Cosine"] = "Cosine"
    index: IndexSpec = IndexSpec()


class RetentionSpec(_Part, frozen=True):
    events: Seconds | None = None
    turns: Annotated[int, Meta(ge=1, le=100_000)] = 1000


class ExternalRedis(_Part, frozen=True):
    host: Annotated[str, Meta(min_length=1)]
    port: Port = 6379
    tls: bool = False
    secret_ref: dict[str, str] | None = None


class RedisSpec(_Part, frozen=True):
    """At most one member is given; what the operator makes of `managed` is its own affair."""

    managed: dict[str, Any] | None = None
    external: ExternalRedis | None = None


class ExternalPostgres(_Part, frozen=True):
    host: Annotated[str, Meta(min_length=1)]
    port: Port = 5432
    database: Annotated[str, Meta(min_length=1)] = "agentmemory"
    ssl_mode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    secret_ref: dict[str, str] | None = None


class PostgresSpec(_Part, frozen=True):
    """At most one of the first two members is given."""

    managed: dict[str, Any] | None = None
    external: ExternalPostgres | None = None
    pooler: dict[str, Any] | None = None


class SidecarSpec(_Part, frozen=True):
    image: str | None = None
    resources: dict[str, Any] | None = None
    port: Port = 7070
    ops_port: Port = 7071


class MonitoringSpec(_Part, frozen=True):
    enabled: bool = True


class Spec(_Part, frozen=True):
    mode: Literal["Hybrid", "Redis", "Postgres"] = "Hybrid"
    shards: Annotated[int, Meta(ge=1, le=1024)] = 16
    working_memory: WorkingMemorySpec = WorkingMemorySpec()
    consolidation: ConsolidationSpec = ConsolidationSpec()
    embedding: EmbeddingSpec = EmbeddingSpec()
    recall: RecallSpec = RecallSpec()
    retention: RetentionSpec = RetentionSpec()
    distillation: DistillationSpec | None = None
    redis: RedisSpec = RedisSpec()
    postgres: PostgresSpec = PostgresSpec()
    sidecar: SidecarSpec = SidecarSpec()
    tls: dict[str, Any] | None = None
    monitoring: MonitoringSpec = MonitoringSpec()
    deletion_policy: Literal["Retain", "Delete"] = "Retain"


class AgentMemory(_Part, frozen=True):
    """The resource. `status` is the operator's."""

    api_version: Literal["agentmemory.io/v1alpha1"]
    kind: Literal["AgentMemory"]
    metadata: Metadata
    spec: Spec = Spec()
    status: Any = None


def read_resource(path: Path) -> AgentMemory:
    """The resource in a YAML file. Raises ConfigError that names the field."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"AGENTMEMORY_CONFIG: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return parse_resource(document, str(path))


def parse_resource(document: Any, origin: str) -> AgentMemory:
    """The resource from what its YAML says; `origin` names that in errors. Raises ConfigError."""
    try:
        resource = msgspec.convert(document, AgentMemory, dec_hook=_custom)
        _check(resource)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ConfigError(f"{origin}: {place.rstrip('`').lstrip('.') or 'the document'}: {message}") from None
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return resource


def _custom(kind: type, value: Any) -> Any:
    return parse_duration(value) if kind is Seconds else parse_size(value)


def _check(resource: AgentMemory) -> None:
    """What the types do not say. Raises ValueError."""
    spec = resource.spec
    for field, name in (("name", resource.metadata.name), ("namespace", resource.metadata.namespace)):
        if _LABEL.fullmatch(name) is None:
            raise ValueError(f"metadata.{field}: {name[:80]!r} is not a DNS label (a-z, 0-9 and -, at most 63)")
    if not 1 <= spec.working_memory.ttl <= _LONGEST_TTL:
        raise ValueError("spec.workingMemory.ttl: it is from 1s to 3650d")
    if not 1024 <= spec.working_memory.max_document_size <= _LARGEST_DOCUMENT:
        raise ValueError("spec.workingMemory.maxDocumentSize: it is from 1Ki to 64Mi")
    if not 0.01 <= spec.consolidation.max_delay <= 3600:
        raise ValueError("spec.consolidation.maxDelay: it is from 10ms to 1h")
    if spec.retention.events is not None and not 1 <= spec.retention.events <= _LONGEST_RETENTION:
        raise ValueError("spec.retention.events: events are kept from 1s to 36500d; leave it out to keep them for good")
    _check_unused(spec)
    _check_one_of("spec.redis", managed=spec.redis.managed, external=spec.redis.external)
    _check_one_of("spec.postgres", managed=spec.postgres.managed, external=spec.postgres.external)
    _check_embedding(spec.embedding)
    if spec.mode == "Redis" and spec.recall.index.kind != "Exact":
        raise ValueError("spec.recall.index.kind: mode Redis recalls by an exact scan; set it to Exact")
    if spec.recall.index.ef_construction < 2 * spec.recall.index.m:
        raise ValueError("spec.recall.index.efConstruction: it is at least 2 x m; raise it or lower m")
    if spec.mode == "Redis" and spec.distillation is not None:
        raise ValueError("spec.distillation: mode Redis draws no facts from sessions; remove it, or choose mode Hybrid")


def _check_unused(spec: Spec) -> None:
    """Refuse a store that the mode does without."""
    field = {"Postgres": "redis", "Redis": "postgres"}.get(spec.mode)
    if (field == "redis" and spec.redis != RedisSpec()) or (field == "postgres" and spec.postgres != PostgresSpec()):
        raise ValueError(f"spec.{field}: mode {spec.mode} does without it; remove it")


def _check_one_of(field: str, **members: Any) -> None:
    given = [name for name, value in members.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{field}: {' and '.join(given)} exclude each other")


def _check_embedding(embedding: EmbeddingSpec) -> None:
    if embedding.path is not None and embedding.provider != "Local":
        raise ValueError("spec.embedding.path: it is for the provider Local only; remove it")
    given = {"model": embedding.model, "baseUrl": embedding.base_url, "secretRef": embedding.secret_ref}
    if embedding.provider == "OpenAI":
        if embedding.model is None:
            raise ValueError("spec.embedding.model: the provider OpenAI needs one, such as text-embedding-3-small")
    elif wrong := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"spec.embedding.{wrong[0]}: it is for the provider OpenAI only; remove it")
