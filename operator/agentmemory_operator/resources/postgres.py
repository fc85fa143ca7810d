"""Postgres with pgvector in a StatefulSet of one pod: scram and TLS for everyone, tuned for what memories do."""

from __future__ import annotations

import re
from typing import Any

from agentmemory_operator import names
from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.resources import stores, tuning
from agentmemory_operator.resources.common import Manifest, Namespaces
from agentmemory_operator.resources.pods import (
    ADMIN_FILES,
    TLS_FILES,
    container_security,
    literal,
    mount,
    probe,
    scratch,
    secret_volume,
    shell,
    starting,
)
from agentmemory_operator.resources.policies import clients, pooler_of
from agentmemory_operator.resources.stores import DATA_FILES, Store
from agentmemory_operator.spec import RESERVED_PARAMETERS, AgentMemory, ManagedPostgres, Pooler, bytes_of

PORT = 5432
DATABASE = "agentmemory"
GRACE = 180
_DEFAULT_RESOURCES = {"requests": {"memory": "64Mi"}}
_PARAMETER = re.compile(r"[a-z_][a-z0-9_.]*")

FORBIDDEN = RESERVED_PARAMETERS | {
    "data_sync_retry",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "external_pid_file",
    "ignore_checksum_failure",
    "log_parameter_max_length",
    "log_parameter_max_length_on_error",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_passphrase_command",
    "standard_conforming_strings",
    "unix_socket_group",
    "unix_socket_permissions",
    "zero_damaged_pages",
}
"""Parameters on which the operator's access, the promises of a memory or the secrecy of its contents hang."""

_ALWAYS = {
    # Sidecars come and go with their pods, not always politely.
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "10s",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    # Most tables only grow, and recall reads its index alone: that needs pages marked visible soon after an insert.
    "autovacuum_naptime": "30s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "1000",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    # Compiling a statement takes longer than running one of ours.
    "jit": "off",
    # Where the node has huge pages and the container has no share of them, the first touch is a bus error.
    "huge_pages": "off",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "1000",
    "timezone": "UTC",
    # What agents said is in parameters and in the details of errors: neither belongs into a log.
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_error_verbosity": "terse",
    "log_lock_waits": "on",
}
_FOR_GOOD = {"log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0"}


def manifests(memory: AgentMemory, *, namespaces: Namespaces) -> list[Manifest]:
    """All that is applied for a managed Postgres. It starts once Secrets N-postgres-admin and N-postgres-tls are there.

    Raises InvalidSpec for a parameter that is not a user's to set.
    """
    spec = memory.spec.postgres.managed
    assert spec is not None
    store = Store(
        component="postgres",
        protocol="postgresql",
        port=PORT,
        grace=GRACE,
        spec=spec,
        container=_container(spec, memory.spec.postgres.pooler),
        volumes=[
            secret_volume("admin", names.child(memory.name, "postgres-admin"), ["password"]),
            secret_volume("tls", names.child(memory.name, "postgres-tls")),
            scratch("run", "16Mi"),
            scratch("tmp", "64Mi"),
            scratch("shm", tuning.shared_memory(tuning.memory_limit(spec.resources)), in_memory=True),
        ],
        peers=[*clients(memory, namespaces), pooler_of(memory)],
    )
    return stores.manifests(memory, store)


def parameters(spec: ManagedPostgres, pooler: Pooler) -> dict[str, str]:
    """The settings of the server, by name, the user's own above ours. Raises InvalidSpec for one that is forbidden."""
    limit = tuning.memory_limit(spec.resources)
    # During a rotation there are two logins, and a pooler keeps connections for each.
    pooled = pooler.instances * pooler.pool_size * 2 if pooler.enabled else 0
    connections = tuning.connections(limit, pooled=pooled)
    settings = {
        "max_connections": str(connections),
        **tuning.by_memory(limit, connections=connections),
        **tuning.by_storage(bytes_of(spec.storage.size)),
        **_ALWAYS,
        **_checked(spec.parameters),
        **_FOR_GOOD,
    }
    return dict(sorted(settings.items()))


def _checked(wanted: dict[str, str]) -> dict[str, str]:
    """By the name as Postgres understands it: letters of either case, and a hyphen is as good as an underscore."""
    found = {}
    for written, value in wanted.items():
        name = written.lower().replace("-", "_")
        field = f"spec.postgres.managed.parameters.{written[:60]}"
        if _PARAMETER.fullmatch(name) is None or not value.isprintable():
            raise InvalidSpec("InvalidParameter", f"{field}: this is no parameter of PostgreSQL")
        if name in FORBIDDEN:
            raise InvalidSpec("ForbiddenParameter", f"{field}: it is not to be set; remove it")
        found[name] = value
    return found


def _container(spec: ManagedPostgres, pooler: Pooler) -> dict[str, Any]:
    serves = {"exec": {"command": shell("postgres-probe.sh")}}
    answers = {"exec": {"command": [*shell("postgres-probe.sh"), "alive"]}}
    settings = parameters(spec, pooler)
    return {
        "name": "postgres",
        "image": spec.image,
        "command": shell("postgres-start.sh"),
        "args": [part for name, value in settings.items() for part in ("-c", literal(f"{name}={value}"))],
        "ports": [{"name": "postgres", "containerPort": PORT}],
        "resources": spec.resources or _DEFAULT_RESOURCES,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("data", DATA_FILES),
            mount("admin", ADMIN_FILES, read_only=True),
            mount("tls", TLS_FILES, read_only=True),
            mount("run", "/run/postgresql"),
            mount("tmp", "/tmp"),
            mount("shm", "/dev/shm"),
        ],
        # SIGTERM would wait for every client to leave; SIGINT ends their sessions, and leaves the data clean.
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "kill -INT 1"]}}},
        "startupProbe": starting(serves),
        "readinessProbe": probe(serves, period=10, failures=3),
        "livenessProbe": probe(answers, period=30, failures=10, timeout=10),
    }
