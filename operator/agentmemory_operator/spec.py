"""The AgentMemory as the operator reads it. Durations and quantities stay as they are written; `seconds` and `bytes_of`
say what they are worth.

The API server has applied the defaults and checked the rules of the CRD before the operator sees a resource. Both are
here once more for a resource that was stored under an older CRD, and as types that the rest of the operator leans on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from kubernetes.utils.quantity import parse_quantity
from msgspec import Meta, Struct

from agentmemory_operator.errors import InvalidSpec

LOCAL_DIMENSIONS = 384
"""Length of the vectors of the provider Local."""
MAX_DIMENSIONS = 4000
"""The longest vector of halves that an HNSW index of pgvector takes."""

Store = Literal["redis", "postgres"]
STORES: tuple[Store, ...] = ("redis", "postgres")
_STORES_OF: Mapping[str, tuple[Store, ...]] = {"Hybrid": STORES, "Redis": ("redis",), "Postgres": ("postgres",)}

RESERVED_PARAMETERS = frozenset(
    {
        "config_file",
        "data_directory",
        "data_sync_retry",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "external_pid_file",
        "fsync",
        "full_page_writes",
        "hba_file",
        "ident_file",
        "ignore_checksum_failure",
        "listen_addresses",
        "log_parameter_max_length",
        "log_parameter_max_length_on_error",
        "password_encryption",
        "port",
        "ssl",
        "ssl_ca_file",
        "ssl_cert_file",
        "ssl_crl_dir",
        "ssl_crl_file",
        "ssl_key_file",
        "ssl_passphrase_command",
        "standard_conforming_strings",
        "synchronous_commit",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
        "zero_damaged_pages",
    }
)
"""Parameters of Postgres that are not a user's: the operator's access, the promises of a memory or the secrecy of its
contents hang on them."""

_DURATION = r"(?:[0-9]{1,9}(?:ms|s|m|h|d))+"
_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_QUANTITY = r"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?"

Duration = Annotated[str, Meta(pattern=rf"\A{_DURATION}\Z")]
Size = Annotated[str, Meta(pattern=r"\A[0-9]{1,15}(?:|k|M|G|T|Ki|Mi|Gi|Ti)\Z")]
Quantity = Annotated[str, Meta(pattern=rf"\A{_QUANTITY}\Z")]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(gt=0, le=1)]
Text = Annotated[str, Meta(min_length=1)]


class _Part(Struct, kw_only=True, frozen=True, rename="camel"):
    """Members it does not know are passed over: a newer CRD may have more."""


class WorkingMemorySpec(_Part, frozen=True):
    ttl: Duration = "1h"
    recent_messages: Positive = 50
    max_document_size: Size = "1Mi"


class AlertsSpec(_Part, frozen=True):
    """Shares of the TTL that the lag may reach."""

    warning_ratio: Ratio = 0.5
    critical_ratio: Ratio = 0.8


class ConsolidationSpec(_Part, frozen=True):
    max_delay: Duration = "5s"
    batch_size: Positive = 256
    alerts: AlertsSpec = AlertsSpec()


class KeyRef(_Part, frozen=True):
    """A member of a Secret in the memory's namespace."""

    name: Text
    key: Text = "api-key"


class EmbeddingSpec(_Part, frozen=True):
    """`path` is for the provider Local, the last three for OpenAI, which is sent no key without a `secret_ref`."""

    provider: Literal["Local", "OpenAI", "None"] = "Local"
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] = LOCAL_DIMENSIONS
    path: Text | None = None
    model: Text | None = None
    base_url: Text | None = None
    secret_ref: KeyRef | None = None


class DistillationSpec(_Part, frozen=True):
    """Without a `secret_ref` no key is sent."""

    endpoint: Text
    model: Text
    secret_ref: KeyRef | None = None


class IndexSpec(_Part, frozen=True):
    kind: Literal["Exact", "HNSW"] = "Exact"
    m: Positive = 16
    ef_construction: Positive = 128


class RecallSpec(_Part, frozen=True):
    distance: Literal["Cosine"] = "Cosine"
    index: IndexSpec = IndexSpec()


class RetentionSpec(_Part, frozen=True):
    events: Duration | None = None
    turns: Annotated[int, Meta(ge=1, le=100_000)] = 1000


class Storage(_Part, frozen=True):
    """The volume of a managed store. Without a class the cluster's default one is taken."""

    size: Quantity
    storage_class: str | None = None


class Persistence(_Part, frozen=True):
    appendfsync: Literal["always", "everysec"] = "everysec"


class PodDisruptionBudget(_Part, frozen=True):
    enabled: bool = True


class Placement(_Part, frozen=True):
    """Where the pods of a managed block run: fields of a PodSpec, handed on as they are."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] | None = None
    priority_class_name: str | None = None
    image_pull_secrets: list[dict[str, Any]] = []
    topology_spread_constraints: list[dict[str, Any]] = []


class ManagedRedis(Placement, frozen=True):
    image: Text = "redis:8"
    storage: Storage = Storage(size="1Gi")
    persistence: Persistence = Persistence()
    resources: dict[str, Any] = {}
    pod_disruption_budget: PodDisruptionBudget = PodDisruptionBudget()


class ManagedPostgres(Placement, frozen=True):
    image: Text = "pgvector/pgvector:pg17"
    storage: Storage = Storage(size="10Gi")
    resources: dict[str, Any] = {}
    pod_disruption_budget: PodDisruptionBudget = PodDisruptionBudget()
    parameters: dict[str, str] = {}


class SecretRef(_Part, frozen=True):
    """A Secret in the memory's namespace."""

    name: Text


class ExternalRedis(_Part, frozen=True):
    """Keys of the Secret: username (default "default"), password, ca.crt (optional)."""

    host: Text
    secret_ref: SecretRef
    port: Port = 6379
    tls: bool = False


class ExternalPostgres(_Part, frozen=True):
    """Keys of the Secret: username, password, ca.crt (optional)."""

    host: Text
    secret_ref: SecretRef
    port: Port = 5432
    database: Text = "agentmemory"
    ssl_mode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"


class Pooler(Placement, frozen=True):
    """PgBouncer. `pool_size` is the number of connections to Postgres that one instance keeps for one login."""

    enabled: bool = False
    instances: Positive = 2
    image: Text = "edoburu/pgbouncer:v1.24"
    pool_size: Positive = 20
    resources: dict[str, Any] = {}


class RedisSpec(_Part, frozen=True):
    """At most one member is given; exactly one where the mode uses Redis."""

    managed: ManagedRedis | None = None
    external: ExternalRedis | None = None


class PostgresSpec(_Part, frozen=True):
    """At most one of the first two members is given; exactly one where the mode uses Postgres."""

    managed: ManagedPostgres | None = None
    external: ExternalPostgres | None = None
    pooler: Pooler = Pooler()


class SidecarSpec(_Part, frozen=True):
    image: str | None = None
    resources: dict[str, Any] | None = None
    port: Port = 7070
    ops_port: Port = 7071


class IssuerRef(_Part, frozen=True):
    """An issuer of cert-manager."""

    name: Text
    kind: Text = "Issuer"
    group: Text = "cert-manager.io"


class TlsSpec(_Part, frozen=True):
    """Who signs the stores' certificates: the issuer, else the operator with a CA of this memory's own."""

    issuer_ref: IssuerRef | None = None


class MonitoringSpec(_Part, frozen=True):
    enabled: bool = True


class Spec(_Part, frozen=True):
    mode: Literal["Hybrid", "Redis", "Postgres"] = "Hybrid"
    shards: Annotated[int, Meta(ge=1, le=1024)] = 16
    working_memory: WorkingMemorySpec = WorkingMemorySpec()
    consolidation: ConsolidationSpec = ConsolidationSpec()
    embedding: EmbeddingSpec = EmbeddingSpec()
    distillation: DistillationSpec | None = None
    recall: RecallSpec = RecallSpec()
    retention: RetentionSpec = RetentionSpec()
    redis: RedisSpec = RedisSpec()
    postgres: PostgresSpec = PostgresSpec()
    sidecar: SidecarSpec = SidecarSpec()
    tls: TlsSpec = TlsSpec()
    monitoring: MonitoringSpec = MonitoringSpec()
    deletion_policy: Literal["Retain", "Delete"] = "Retain"

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores that the mode uses; all others are not there."""
        return _STORES_OF[self.mode]


class AgentMemory(Struct, kw_only=True, frozen=True):
    """The resource. `raw` is what was read, `status` included; it is not to be changed."""

    name: str
    namespace: str
    uid: str
    generation: int
    deleting: bool
    annotations: dict[str, str]
    spec: Spec
    raw: dict[str, Any]


class _Metadata(_Part, frozen=True):
    name: Text
    namespace: Text
    uid: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    annotations: dict[str, str] = {}


class _Body(_Part, frozen=True):
    metadata: _Metadata
    spec: Spec


def read(body: Mapping[str, Any]) -> AgentMemory:
    """The resource as the API server holds it. Raises InvalidSpec with the field's path."""
    raw = dict(body)
    try:
        found = msgspec.convert({name: raw[name] for name in ("metadata", "spec") if name in raw}, _Body)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise InvalidSpec("InvalidSpec", f"{place.rstrip('`').lstrip('.') or 'the resource'}: {message}") from None
    _check_stores(found.spec)
    if found.spec.embedding.provider == "OpenAI" and found.spec.embedding.model is None:
        raise InvalidSpec("InvalidSpec", "spec.embedding.model: the provider OpenAI needs one")
    return AgentMemory(
        name=found.metadata.name,
        namespace=found.metadata.namespace,
        uid=found.metadata.uid,
        generation=found.metadata.generation,
        deleting=found.metadata.deletion_timestamp is not None,
        annotations=found.metadata.annotations,
        spec=found.spec,
        raw=raw,
    )


def _check_stores(spec: Spec) -> None:
    """Each store that the mode uses is there once, and the other is not. Raises InvalidSpec."""
    redis, postgres = spec.redis, spec.postgres
    for field, given, unused in (
        ("spec.redis", (redis.managed, redis.external), "Postgres"),
        ("spec.postgres", (postgres.managed, postgres.external), "Redis"),
    ):
        count = sum(member is not None for member in given)
        if spec.mode == unused and count:
            raise InvalidSpec("InvalidSpec", f"{field}: mode {spec.mode} does not use it; remove it")
        if spec.mode != unused and count != 1:
            raise InvalidSpec("InvalidSpec", f"{field}: give exactly one of managed and external")


def seconds(text: str) -> float:
    """`1h30m` as seconds. Raises ValueError."""
    if re.fullmatch(_DURATION, text) is None:
        raise ValueError(f"{text[:40]!r} is not a duration; write it like 500ms, 5s, 1h30m or 7d")
    return sum(int(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def bytes_of(quantity: str) -> int:
    """A quantity of Kubernetes (`1Gi`, `1.5Gi`, `1e3`) as bytes, rounded up as Kubernetes does. Raises ValueError."""
    if re.fullmatch(_QUANTITY, quantity) is None:
        raise ValueError(f"{quantity[:40]!r} is not a quantity; write it like 512Mi, 10Gi or 1.5Ti")
    worth: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return math.ceil(worth)
