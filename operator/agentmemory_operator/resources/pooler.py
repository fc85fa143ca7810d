"""PgBouncer in front of Postgres: transactions share few connections, and prepared statements keep working."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

from agentmemory_operator import names
from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.resources.common import (
    Login,
    Manifest,
    Namespaces,
    StoreAddress,
    meta,
    pod_labels,
    selector,
    ssl_mode,
)
from agentmemory_operator.resources.pods import (
    TLS_FILES,
    container_security,
    mount,
    pod_spec,
    probe,
    scratch,
    secret_volume,
    shell,
)
from agentmemory_operator.resources.policies import clients, disruption_budget, network_policy
from agentmemory_operator.resources.postgres import DATABASE
from agentmemory_operator.resources.stores import service
from agentmemory_operator.spec import AgentMemory

COMPONENT = "pooler"
PORT = 5432
CONTAINER_PORT = 6432
GRACE = 60
LOGINS = "/etc/agentmemory/logins"
SETTINGS = "/etc/agentmemory/pooler"
POSTGRES_FILES = "/etc/agentmemory/postgres"
_DEFAULT_RESOURCES = {"requests": {"memory": "16Mi"}}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")


def manifests(
    memory: AgentMemory, *, postgres: StoreAddress, namespaces: Namespaces, logins: list[Login]
) -> list[Manifest]:
    """All that is applied for a pooler in front of `postgres`. Secret N-pooler-tls has to be there for it to start.

    Raises InvalidSpec for a database that PgBouncer cannot serve.
    """
    return [
        network_policy(memory, COMPONENT, CONTAINER_PORT, clients(memory, namespaces), silent=False, owned=True),
        service(memory, COMPONENT, "postgresql", PORT, CONTAINER_PORT, owned=True),
        _secret(memory, logins),
        _config_map(memory, postgres),
        _deployment(memory),
        disruption_budget(memory, COMPONENT, {"maxUnavailable": 1}, owned=True),
    ]


def settings(postgres: StoreAddress, *, pool_size: int) -> str:
    """pgbouncer.ini, without what depends on files that may come and go: the start script adds that at the end.

    Raises InvalidSpec for a database whose name PgBouncer keeps for itself.
    """
    database = postgres.database or DATABASE
    if database == "pgbouncer":
        raise InvalidSpec("InvalidDatabase", "spec.postgres.external.database: PgBouncer keeps this name for itself")
    target = f"host={_quoted(postgres.host)} port={postgres.port} dbname={_quoted(database)}"
    return "\n".join(
        [
            "[databases]",
            f"{_identifier(database)} = {target}",
            "",
            "[pgbouncer]",
            *(f"{name} = {value}".rstrip() for name, value in _settings(pool_size).items()),
            "",
        ]
    )


def userlist(logins: list[Login]) -> str:
    """auth_file: plain passwords, since PgBouncer logs in to Postgres with them as well."""
    return "".join(f"{_in_list(login.username)} {_in_list(login.password)}\n" for login in logins)


def _settings(pool_size: int) -> dict[str, str | int]:
    return {
        "listen_addr": "*",
        "listen_port": CONTAINER_PORT,
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "max_prepared_statements": 200,
        "default_pool_size": pool_size,
        "max_client_conn": 5000,
        "ignore_startup_parameters": "extra_float_digits",
        "auth_type": "scram-sha-256",
        "auth_file": f"{LOGINS}/userlist.txt",
        "client_tls_sslmode": "require",
        "client_tls_cert_file": f"{TLS_FILES}/tls.crt",
        "client_tls_key_file": f"{TLS_FILES}/tls.key",
        # While Postgres is away, a client hears of it within its own patience; once it is back, nobody waits for long.
        "query_wait_timeout": 10,
        "server_connect_timeout": 5,
        "server_login_retry": 1,
        "dns_nxdomain_ttl": 2,
        "server_idle_timeout": 300,
        "tcp_keepidle": 60,
        "tcp_keepintvl": 10,
        "tcp_keepcnt": 6,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _in_list(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _secret(memory: AgentMemory, logins: list[Login]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": meta(memory, names.child(memory.name, COMPONENT), COMPONENT, owned=True),
        "data": {"userlist.txt": b64encode(userlist(logins).encode()).decode()},
    }


def _config_map(memory: AgentMemory, postgres: StoreAddress) -> Manifest:
    text = settings(postgres, pool_size=memory.spec.postgres.pooler.pool_size)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(memory, names.child(memory.name, COMPONENT), COMPONENT, owned=True),
        "data": {"pgbouncer.ini": text},
    }


def _deployment(memory: AgentMemory) -> Manifest:
    spec = memory.spec.postgres.pooler
    pod = pod_spec(spec, [_container(memory)], _volumes(memory), grace=GRACE)
    pod.setdefault("topologySpreadConstraints", [_over_hosts(memory)])
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta(memory, names.child(memory.name, COMPONENT), COMPONENT, owned=True),
        "spec": {
            "replicas": spec.instances,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(memory, COMPONENT)},
            "template": {"metadata": {"labels": pod_labels(memory, COMPONENT)}, "spec": pod},
        },
    }


def _over_hosts(memory: AgentMemory) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(memory, COMPONENT)},
    }


def _container(memory: AgentMemory) -> dict[str, Any]:
    spec = memory.spec.postgres.pooler
    listens = {"tcpSocket": {"port": CONTAINER_PORT}}
    return {
        "name": "pgbouncer",
        "image": spec.image,
        "command": shell("pooler-start.sh"),
        "env": [
            {"name": "AGENTMEMORY_SSL_MODE", "value": ssl_mode(memory, ca=False, direct=True)},
            {"name": "AGENTMEMORY_SSL_MODE_WITH_CA", "value": ssl_mode(memory, ca=True, direct=True)},
        ],
        "ports": [{"name": "postgres", "containerPort": CONTAINER_PORT}],
        "resources": spec.resources or _DEFAULT_RESOURCES,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("settings", SETTINGS, read_only=True),
            mount("logins", LOGINS, read_only=True),
            mount("tls", TLS_FILES, read_only=True),
            mount("postgres", POSTGRES_FILES, read_only=True),
            mount("tmp", "/tmp"),
        ],
        "readinessProbe": probe(listens, period=5, failures=2),
        "livenessProbe": probe(listens, period=20, failures=6),
    }


def _volumes(memory: AgentMemory) -> list[dict[str, Any]]:
    external = memory.spec.postgres.external
    trusted = external.secret_ref.name if external else names.child(memory.name, "postgres-tls")
    return [
        {"name": "settings", "configMap": {"name": names.child(memory.name, COMPONENT)}},
        secret_volume("logins", names.child(memory.name, COMPONENT)),
        secret_volume("tls", names.child(memory.name, "pooler-tls")),
        secret_volume("postgres", trusted, ["ca.crt"], optional=external is not None),
        scratch("tmp", "16Mi"),
    ]
