"""Logins and certificates are changed under load, and nobody but the log can tell."""

from __future__ import annotations

import pytest

from support.cluster import (
    GRACE,
    Agent,
    annotate,
    bring_files,
    life,
    redis_cli,
    secret,
    settled,
    sql,
    status_of,
    verify,
    wait_for,
)
from support.kubectl import kubectl

pytestmark = pytest.mark.cluster

_SHOWN = """
import hashlib, socket, ssl, struct, sys
host, port, postgres = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "postgres"
plain = socket.create_connection((host, port), timeout=10)
if postgres:
    plain.sendall(struct.pack("!ii", 8, 80877103))
    assert plain.recv(1) == b"S"
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
print(hashlib.sha256(context.wrap_socket(plain, server_hostname=host).getpeercert(True)).hexdigest())
"""


def rotate_logins(namespace: str, value: str) -> None:
    annotate(namespace, "rotate", value)
    wait_for(
        "the next login to be given out", lambda: secret(namespace, "research-credentials").get("rotation") == value
    )
    wait_for("the sidecar to have it", lambda: brought(namespace))


def brought(namespace: str) -> bool:
    """Whether the agent's pod has the login that stands in the Secret; the kubelet is asked for it each time, since it
    may not have heard of the new one when a pod changes."""
    bring_files(namespace)
    pod = kubectl("get", "pods", "--namespace", namespace, "--selector", "test-agent", "-o", "name").split()[0]
    mounted = kubectl(
        "exec", pod, "--namespace", namespace, "--container", "agentmemory", "--", "cat",
        "/etc/agentmemory/redis-username",
    )  # fmt: skip
    return mounted == secret(namespace, "research-credentials")["redis-username"]


def usernames(namespace: str) -> set[str]:
    """Of the sidecars, in Redis and in Postgres together."""
    in_redis = {line.split()[1] for line in redis_cli(namespace, "ACL", "LIST").splitlines()}
    in_postgres = set(sql(namespace, "SELECT rolname FROM pg_roles WHERE rolcanlogin").splitlines())
    return (in_redis | in_postgres) - {"default", "operator", "postgres"}


def taken(namespace: str, logins: dict[str, str]) -> set[str]:
    """The stores that take these logins."""
    in_redis = ask_store(namespace, "redis", f"REDISCLI_AUTH={logins['redis-password']}", "redis-cli", "--tls",
                         "--insecure", "--user", logins["redis-username"], "PING")  # fmt: skip
    in_postgres = ask_store(namespace, "postgres", f"PGPASSWORD={logins['postgres-password']}", "psql",
                            f"host=127.0.0.1 sslmode=require dbname=agentmemory user={logins['postgres-username']}",
                            "-XqtAc", "SELECT 'PONG'")  # fmt: skip
    return {store for store, said in (("redis", in_redis), ("postgres", in_postgres)) if said.strip() == "PONG"}


def ask_store(namespace: str, store: str, *command: str) -> str:
    return kubectl("exec", f"research-{store}-0", "--namespace", namespace, "--", "env", *command, check=False)


def test_logins_rotate_under_load(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    before = secret(namespace, "research-credentials")
    first = before["redis-username"]
    for value, expected in (("one", first[:-1] + "2"), ("two", first)):
        former = secret(namespace, "research-credentials")
        assert taken(namespace, former) == {"redis", "postgres"}
        rotate_logins(namespace, value)
        after = secret(namespace, "research-credentials")
        assert after["redis-username"] == after["postgres-username"] == expected
        assert after["redis-password"] not in before.values()
        writer.wait_for_more(10)
        wait_until_only(namespace, expected)
        assert taken(namespace, former) == taken(namespace, before) == set(), "the name is used again, the password not"
        assert taken(namespace, after) == {"redis", "postgres"}
        writer.wait_for_more(10)
        settled(namespace)
        assert status_of(namespace)["credentials"]["rotation"] == value
    writer.stop()
    assert writer.failures == []
    verify(writer)


def wait_until_only(namespace: str, username: str) -> None:
    wait_for("the former login to be dropped", lambda: usernames(namespace) == {username}, GRACE + 90.0)


def shown(namespace: str, store: str, port: int) -> str:
    """The fingerprint of the certificate that a store shows, as a pod sees it."""
    pod = kubectl("get", "pods", "--namespace", namespace, "--selector", "test-agent", "-o", "name").split()[0]
    return kubectl(
        "exec", pod, "--namespace", namespace, "--container", "agent", "--", "python3", "-c", _SHOWN,
        f"research-{store}", str(port), store,
    ).strip()  # fmt: skip


def test_certificates_rotate_under_load(namespace: str, memory: str) -> None:
    writer = Agent(namespace)
    writer.start()
    stores = {"redis": 6379, "postgres": 5432}
    before = {store: shown(namespace, store, port) for store, port in stores.items()}
    lives = {store: life(namespace, f"research-{store}-0") for store in stores}
    annotate(namespace, "rotate-certificates", "one")
    wait_for("the new certificates", lambda: status_of(namespace)["credentials"].get("certificates") == "one")

    def all_new() -> bool:
        bring_files(namespace, "agentmemory.io/memory=research")
        return all(shown(namespace, store, port) != before[store] for store, port in stores.items())

    wait_for("both stores to show a new certificate", all_new)
    settled(namespace)
    writer.wait_for_more(10)
    writer.stop()
    assert {store: life(namespace, f"research-{store}-0") for store in stores} == lives, "no store was restarted"
    assert writer.failures == []
    verify(writer)
