"""What an administrator is told to change, from what a store is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentmemory_engine.preflight import PostgresFacts, RedisFacts, problems_of

POSTGRES = PostgresFacts(
    version="17.2",
    vector_available="0.8.0",
    vector_installed="0.8.0",
    username="dba",
    superuser=False,
    can_create_role=True,
    can_create_schema=True,
    database="Agents",
)
REDIS = RedisFacts(
    flavour="redis",
    version="7.2.4",
    role="master",
    eviction_policy="noeviction",
    append_only=True,
    appendfsync="everysec",
    max_memory=0,
    username="dba",
    can_manage_users=True,
)


@pytest.mark.parametrize(
    "facts",
    [
        POSTGRES,
        replace(POSTGRES, version="15.0"),
        replace(POSTGRES, version="18beta2"),
        replace(POSTGRES, vector_installed="0.10.1", vector_available=None),
        replace(POSTGRES, superuser=True, vector_installed=None),
        replace(POSTGRES, superuser=True, can_create_role=False),
        REDIS,
        replace(REDIS, version="7.0.0"),
        replace(REDIS, flavour="valkey", version="8.0.1"),
        replace(REDIS, append_only=False, appendfsync=None, max_memory=1 << 30),
    ],
)
def test_a_store_that_will_do_has_no_problem(facts: PostgresFacts | RedisFacts) -> None:
    assert problems_of(facts) == []


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        (replace(POSTGRES, version="14.9"), "VersionTooOld", "PostgreSQL 14.9"),
        (replace(POSTGRES, vector_installed=None), "VectorExtensionMissing", "CREATE EXTENSION vector"),
        (
            replace(POSTGRES, vector_installed=None, vector_available=None, superuser=True),
            "VectorExtensionMissing",
            "no pgvector",
        ),
        (
            replace(POSTGRES, vector_installed=None, vector_available="0.7.4", superuser=True),
            "VectorExtensionMissing",
            "pgvector 0.7.4",
        ),
        (replace(POSTGRES, vector_installed="0.7.4"), "VectorExtensionTooOld", "ALTER EXTENSION vector UPDATE"),
        (replace(POSTGRES, can_create_role=False), "MissingRights", 'ALTER ROLE "dba" CREATEROLE'),
        (replace(POSTGRES, can_create_schema=False), "MissingRights", 'GRANT CREATE ON DATABASE "Agents" TO "dba"'),
        (replace(REDIS, version="6.2.14"), "VersionTooOld", "Redis 6.2.14"),
        (replace(REDIS, flavour="valkey", version="7.2.5"), "VersionTooOld", "Valkey 7.2.5"),
        (replace(REDIS, role="slave"), "NotMaster", "lead to the master"),
        (
            replace(REDIS, eviction_policy="allkeys-lru"),
            "WrongEvictionPolicy",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        (replace(REDIS, can_manage_users=False), "MissingRights", "ACL SETUSER dba +acl"),
        (replace(REDIS, default_may_all=False), "DefaultUserRestricted", "ACL SETUSER default off ~* &* +@all"),
        (replace(REDIS, can_manage_users=False, username=None), "MissingRights", "ACL SETUSER <its name> +acl"),
    ],
)
def test_each_problem_says_what_to_do(facts: PostgresFacts | RedisFacts, reason: str, words: str) -> None:
    [problem] = problems_of(facts)
    assert problem.reason == reason
    assert words in problem.message


def test_several_problems_are_all_named() -> None:
    facts = replace(POSTGRES, version="13.1", can_create_role=False, can_create_schema=False, vector_installed=None)
    assert [problem.reason for problem in problems_of(facts)] == [
        "VersionTooOld",
        "VectorExtensionMissing",
        "MissingRights",
        "MissingRights",
    ]


@pytest.mark.parametrize(
    ("append_only", "appendfsync", "persistence"),
    [(True, "always", "appendfsync=always"), (True, None, "Unknown"), (False, "everysec", "none")],
)
def test_persistence_is_what_is_in_force(append_only: bool, appendfsync: str | None, persistence: str) -> None:
    assert replace(REDIS, append_only=append_only, appendfsync=appendfsync).persistence == persistence
