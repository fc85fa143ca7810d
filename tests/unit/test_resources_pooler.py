"""PgBouncer: its settings, its users' file, and what it trusts."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.resources import pooler
from agentmemory_operator.resources.common import Login, Manifest, StoreAddress
from support.resources import LOGINS, NAMESPACES, POSTGRES, by_kind, memory

EXTERNAL = {"host": "db.example", "secretRef": {"name": "database"}}


def made(address: StoreAddress = POSTGRES, **spec: Any) -> dict[str, Manifest]:
    one = memory(**spec)
    return by_kind(pooler.manifests(one, postgres=address, namespaces=NAMESPACES, logins=LOGINS))


def pod_of(manifests: dict[str, Manifest]) -> dict[str, Any]:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert isinstance(pod, dict)
    return pod


def settings_of(manifests: dict[str, Manifest]) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(manifests["ConfigMap"]["data"]["pgbouncer.ini"])
    return parser


def test_transactions_share_connections_over_tls_and_prepared_statements_work() -> None:
    parser = settings_of(made(postgres={"managed": {}, "pooler": {"enabled": True, "poolSize": 7}}))
    assert parser.sections() == ["databases", "pgbouncer"]
    assert dict(parser["databases"]) == {
        "agentmemory": "host='research-postgres.team.svc' port=5432 dbname='agentmemory'"
    }
    found = parser["pgbouncer"]
    assert found["pool_mode"] == "transaction" and found["max_prepared_statements"] == "200"
    assert found["client_tls_sslmode"] == "require" and found["auth_type"] == "scram-sha-256"
    assert found["default_pool_size"] == "7"
    assert not {"admin_users", "stats_users", "auth_user", "auth_query"} & set(found)
    assert "first-secret" not in str(parser.items("pgbouncer")) and "team_1" not in str(dict(parser["databases"]))


def test_the_manifests_lead_to_it() -> None:
    found = made(postgres={"managed": {}, "pooler": {"enabled": True, "instances": 3}})
    assert found["Deployment"]["spec"]["replicas"] == 3
    (port,) = found["Service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (5432, 6432)
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    (rule,) = found["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 6432}]
    assert found["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]
    (spread,) = pod_of(found)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    mounted = {mount["name"] for mount in pod_of(found)["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod_of(found)["volumes"]}


@pytest.mark.parametrize(
    ("postgres", "without", "with_authority", "secret", "optional"),
    [
        ({"managed": {}}, "require", "verify-full", "research-postgres-tls", None),
        ({"external": EXTERNAL}, "prefer", "verify-full", "database", True),
        ({"external": EXTERNAL | {"sslMode": "require"}}, "require", "verify-full", "database", True),
        ({"external": EXTERNAL | {"sslMode": "verify-ca"}}, "verify-ca", "verify-ca", "database", True),
        ({"external": EXTERNAL | {"sslMode": "disable"}}, "disable", "disable", "database", True),
    ],
)
def test_postgres_is_verified_where_there_is_an_authority(
    postgres: dict[str, Any], without: str, with_authority: str, secret: str, optional: bool | None
) -> None:
    pod = pod_of(made(postgres=postgres | {"pooler": {"enabled": True}}))
    environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    assert environment == {"AGENTMEMORY_SSL_MODE": without, "AGENTMEMORY_SSL_MODE_WITH_CA": with_authority}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "postgres"]
    assert volume["secret"]["secretName"] == secret and volume["secret"].get("optional") is optional
    # The Secret of an external Postgres holds its administrator's login too.
    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


@pytest.mark.parametrize(
    ("database", "written"),
    [
        ("plain_1", "plain_1 = host='h' port=1 dbname='plain_1'"),
        ("with-hyphen", "\"with-hyphen\" = host='h' port=1 dbname='with-hyphen'"),
        ("quo'te\"d", "\"quo'te\"\"d\" = host='h' port=1 dbname='quo''te\"d'"),
    ],
)
def test_names_of_databases_are_quoted(database: str, written: str) -> None:
    assert written in pooler.settings(StoreAddress("h", 1, True, database), pool_size=1).splitlines()


def test_the_name_that_pgbouncer_keeps_for_itself_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="PgBouncer"):
        pooler.settings(StoreAddress("h", 1, True, "pgbouncer"), pool_size=1)


def read_userlist(text: str) -> list[tuple[str, str]]:
    """As PgBouncer reads it: two strings in double quotes, where two of these stand for one."""
    found, place = [], 0

    def string(start: int) -> tuple[str, int]:
        place = text.index('"', start) + 1
        value = ""
        while True:
            if text.startswith('""', place):
                value, place = value + '"', place + 2
            elif text[place] == '"':
                return value, place + 1
            else:
                value, place = value + text[place], place + 1

    while '"' in text[place:]:
        username, place = string(place)
        password, place = string(place)
        found.append((username, password))
        place = text.index("\n", place)
    return found


@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_logins_are_read_as_they_were_written(logins: list[tuple[str, str]]) -> None:
    assert read_userlist(pooler.userlist([Login(*one) for one in logins])) == logins
