"""Redis and Postgres as a user runs them: a pod of plain manifests, which the operator is only told of."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from support.certificates import Authority
from support.cluster import Object, apply, memory_manifest
from support.kubectl import kubectl

ADMIN = "root-of-redis"
"""Password of the user `default`."""
STEWARD = "steward"
"""The administrator in Postgres that the operator is given; no superuser. Its password is its name."""
LAX, TLS_ONLY = 6380, 6381
"""Ports of a Redis that evicts, and of one that speaks TLS only."""
REDIS_LOGIN, POSTGRES_LOGIN = "redis-login", "postgres-login"
"""Secrets that hold the administrators."""

_START_POSTGRES = """
set -eu
mkdir -m 0700 /tmp/tls
cp /tls/tls.crt /tls/tls.key /tmp/tls
chmod 0600 /tmp/tls/tls.key
initdb --pgdata=/data/pg --username=postgres --auth=trust --no-sync
printf '%s\\n' 'local all all trust' 'host all all all scram-sha-256' >/data/pg/pg_hba.conf
printf '%s\\n' 'ssl = on' "ssl_cert_file = '/tmp/tls/tls.crt'" "ssl_key_file = '/tmp/tls/tls.key'" \\
    "listen_addresses = '*'" 'max_connections = 200' 'fsync = off' 'huge_pages = off' >>/data/pg/postgresql.conf
exec postgres -D /data/pg -c unix_socket_directories=/tmp
"""
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 999,
    "runAsGroup": 999,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class ExternalStores:
    """A pod `stores` in a namespace, with a Postgres and three Redis: a good one, one that evicts, one of TLS only."""

    namespace: str
    authority: Authority

    @property
    def host(self) -> str:
        """Where all of them answer."""
        return f"stores.{self.namespace}.svc"

    def sql(self, statement: str, database: str = "shared") -> str:
        """What the statement answers to the superuser, a row a line. Raises KubectlError where it is refused."""
        return self.sql_as("postgres", "", statement, database)

    def sql_as(self, user: str, password: str, statement: str, database: str = "shared") -> str:
        """The same as another login, which needs its password."""
        where = ("-h", "127.0.0.1") if password else ("-h", "/tmp")
        return self._run(
            "postgres", "env", f"PGPASSWORD={password}", "psql", *where, "-U", user, "-d", database, "-XqtA",
            "-v", "ON_ERROR_STOP=1", "-c", statement,
        )  # fmt: skip

    def redis(self, *command: str, port: int = 6379) -> str:
        """What Redis answers to its administrator; errors are answers as well."""
        return self.redis_as("default", ADMIN, *command, port=port)

    def redis_as(self, user: str, password: str, *command: str, port: int = 6379) -> str:
        """The same as another login."""
        login = ("--user", user, "--pass", password, "--no-auth-warning")
        return self._run("redis", "redis-cli", "-p", str(port), *login, *command)

    def _run(self, container: str, *command: str) -> str:
        return kubectl("--namespace", self.namespace, "exec", "stores", "-c", container, "--", *command).strip()

    def make_database(self, name: str, *, owner: str = STEWARD, vector: bool = True) -> None:
        """A database with pgvector in which `owner`, a login that is no superuser, may make schemas."""
        if not self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{owner}'", "postgres"):
            self.sql(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{owner}'", "postgres")
        self.sql(f"CREATE DATABASE {name}", "postgres")
        self.sql(f"GRANT CREATE ON DATABASE {name} TO {owner}", "postgres")
        if vector:
            self.sql("CREATE EXTENSION vector", name)

    def memory(
        self, name: str, *, redis: Object | None = None, postgres: Object | None = None, **spec: Any
    ) -> Object:  # fmt: skip
        """A memory in these stores, whose blocks `external` say more or something else."""
        redis = {"host": self.host, "secretRef": {"name": REDIS_LOGIN}} | (redis or {})
        login = {"name": POSTGRES_LOGIN}
        postgres = {"host": self.host, "database": "shared", "secretRef": login} | (postgres or {})
        stores = {"redis": {"external": redis}, "postgres": {"external": postgres}}
        return memory_manifest(self.namespace, name, **(stores | spec))


def start_stores(namespace: str) -> ExternalStores:
    """Run them, and answer once they do: the database `shared` is there, and Secrets with the administrators."""
    stores = ExternalStores(namespace, Authority("authority of the stores"))
    certificate, key = stores.authority.issue(stores.host)
    apply(
        secret(namespace, "stores-tls", {"tls.crt": certificate, "tls.key": key}),
        secret(namespace, REDIS_LOGIN, {"password": ADMIN}),
        secret(namespace, POSTGRES_LOGIN, login(STEWARD)),
        _service(namespace),
        _pod(namespace),
    )
    kubectl("--namespace", namespace, "wait", "pod/stores", "--for=condition=Ready", "--timeout=180s")
    stores.make_database("shared")
    return stores


def login(username: str, password: str | None = None) -> dict[str, str]:
    """The members of a login's Secret."""
    return {"username": username, "password": password or username}


def secret(namespace: str, name: str, data: dict[str, str]) -> Object:
    """A Secret with these members."""
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}


def _service(namespace: str) -> Object:
    ports = {"postgres": 5432, "redis": 6379, "lax": LAX, "tls": TLS_ONLY}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "stores", "namespace": namespace},
        "spec": {
            "selector": {"app": "stores"},
            "ports": [{"name": name, "port": port} for name, port in ports.items()],
        },
    }


def _pod(namespace: str) -> Object:
    server = f"exec redis-server --requirepass {ADMIN} --dir /data --save '' --appendonly yes --appenddirname"
    files = "--tls-cert-file /tls/tls.crt --tls-key-file /tls/tls.key --tls-ca-cert-file /tls/tls.crt"
    ready = "pg_isready -q -h 127.0.0.1 -U postgres"
    spec = {
        "containers": [
            _container("postgres", "pgvector/pgvector:pg17", _START_POSTGRES, ready),
            _container("redis", "redis:8", f"{server} plain --port 6379"),
            _container("lax", "redis:8", f"{server} lax --port {LAX} --maxmemory-policy allkeys-lru"),
            _container("tls", "redis:8", f"{server} tls --port 0 --tls-port {TLS_ONLY} {files} --tls-auth-clients no"),
        ],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "tls", "secret": {"secretName": "stores-tls", "defaultMode": 0o440}},
        ],
        "securityContext": {"fsGroup": 999},
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    metadata = {"name": "stores", "namespace": namespace, "labels": {"app": "stores"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(name: str, image: str, script: str, ready: str = "true") -> Object:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
        "securityContext": _RESTRICTED,
        "readinessProbe": {"exec": {"command": ["/bin/sh", "-c", ready]}, "periodSeconds": 1, "failureThreshold": 60},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "tls", "mountPath": "/tls", "readOnly": True},
        ],
    }
