"""Whole reconciliations: the API server in memory, Valkey and PostgreSQL real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
import yaml

from agentmemory.local.stores import LocalStores
from agentmemory_engine.keys import Keys
from agentmemory_operator import conditions, reconcile
from agentmemory_operator.kube import CONFIG_MAP, JOB, SECRET, KubeError
from agentmemory_operator.names import RECONCILE_ANNOTATION, ROTATE_ANNOTATION
from agentmemory_operator.reconcile import Step
from agentmemory_operator.work import Work
from support.certificates import Authority
from support.memories import admin_postgres, admin_redis
from support.operators import CONFIG, NAMESPACE, Operated
from support.tls_front import fronts

_number = count(1)


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
async def operated(stores: LocalStores, tmp_path: Path) -> AsyncIterator[Operated]:
    authority = Authority()
    redis, postgres = fronts(stores, tmp_path)
    redis.show(authority)
    postgres.show(authority)
    async with redis.listening(), postgres.listening():
        yield Operated(f"memory-{next(_number)}", stores, redis, postgres, authority)


async def logins_in_stores(operated: Operated, stores: LocalStores) -> tuple[set[str], set[str]]:
    """The memory's usernames in Redis and in Postgres."""
    schema = Keys(*operated.key).schema
    async with admin_redis(stores) as client:
        users = {str(name) for name in await client.acl_users()}
    connection = await admin_postgres(stores)
    rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)", schema)
    await connection.close()
    return {name for name in users if name.startswith(schema)}, {row["rolname"] for row in rows}


async def test_a_memory_becomes_ready_and_then_nothing_is_written(operated: Operated) -> None:
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    assert {kind for kind, (status, _) in operated.conditions.items() if status == "True"} == {
        conditions.READY, *conditions.NEEDED, conditions.CONSOLIDATION, conditions.SIDECARS,
    }  # fmt: skip
    status = operated.body["status"]
    assert status["schema"]["version"] >= 1
    assert status["consolidation"]["pending"] == 0
    assert status["redis"]["persistence"].startswith("appendfsync=")
    before = operated.kube.writes
    operated.new_controller()
    await operated.controller.reconcile_once(operated.key)
    assert operated.kube.writes == before


async def test_no_password_is_anywhere_but_in_secrets(operated: Operated) -> None:
    await operated.settle()
    name = operated.key[1]
    passwords = [value for key, value in operated.secret(f"{name}-credentials").items() if key.endswith("password")]
    passwords += [operated.secret(store)["password"] for store in ("redis", "postgres")]
    shown = str([one for (kind, _, _), one in operated.kube.objects.items() if kind != SECRET.name])
    assert len(passwords) == 4
    assert not [password for password in passwords if password in shown]


async def test_killed_before_any_call_it_goes_on_from_there(operated: Operated, stores: LocalStores) -> None:
    """The process dies ahead of the first call to the API server, then ahead of the second, and so on, until one life
    is long enough; the end is the same as without a death, and nothing is left over on the way."""
    lives = 0
    while await _live(operated, calls=lives + 1):
        lives += 1
        operated.new_controller()
    assert lives > 8
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    only = {f"{Keys(*operated.key).schema}_1"}
    assert await logins_in_stores(operated, stores) == (only, only)


async def test_a_rotation_survives_a_death_before_any_call(operated: Operated, stores: LocalStores) -> None:
    await operated.settle()
    schema = Keys(*operated.key).schema
    before = operated.secret(f"{operated.key[1]}-credentials")
    operated.annotate(ROTATE_ANNOTATION, "once")
    lives = 0
    while await _live(operated, calls=lives + 1):
        lives += 1
        operated.new_controller()
        after = operated.secret(f"{operated.key[1]}-credentials")
        redis_users, postgres_users = await logins_in_stores(operated, stores)
        assert after["redis-username"] in redis_users
        assert after["postgres-username"] in postgres_users
    await operated.settle()
    after = operated.secret(f"{operated.key[1]}-credentials")
    assert (before["redis-username"], after["redis-username"]) == (f"{schema}_1", f"{schema}_2")
    assert after["postgres-password"] != before["postgres-password"]
    assert operated.body["status"]["credentials"]["rotation"] == "once"
    both = {f"{schema}_1", f"{schema}_2"}
    assert await logins_in_stores(operated, stores) == (both, both), "the former login stays for the grace"
    operated.clock.pass_by(CONFIG.rotation_grace + 1)
    await operated.settle()
    only = {f"{schema}_2"}
    assert await logins_in_stores(operated, stores) == (only, only)
    assert not [key for key in operated.secret(f"{operated.key[1]}-credentials") if key.startswith(("next", "retired"))]


async def _live(operated: Operated, *, calls: int) -> bool:
    """One look that ends ahead of its `calls`-th call; whether it did."""
    left = calls

    def before(verb: str, kind: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Crash

    operated.kube.before = before
    try:
        await operated.controller.reconcile_once(operated.key)
    except Crash:
        return True
    finally:
        operated.kube.before = lambda verb, kind: None
    return False


async def test_a_paused_memory_is_looked_at_and_not_touched(operated: Operated) -> None:
    await operated.settle()
    operated.annotate(RECONCILE_ANNOTATION, "disabled")
    config_map = operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]
    config_map["data"]["agentmemory.yaml"] = "spoilt"
    await operated.settle()
    assert operated.conditions[conditions.PAUSED] == ("True", "Annotated")
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    assert operated.body["status"]["phase"] == "Paused"
    assert config_map["data"]["agentmemory.yaml"] == "spoilt"
    operated.annotate(RECONCILE_ANNOTATION, "")
    await operated.settle()
    mended = operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]
    assert mended["data"]["agentmemory.yaml"] != "spoilt"


async def test_a_change_that_cannot_be_leaves_what_runs_alone(operated: Operated) -> None:
    await operated.settle()
    before = dict(operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]["data"])
    operated.edit(redis={"managed": {}}, workingMemory={"ttl": "2h"})
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "RedisChanged")
    assert "Set it back" in operated.message(conditions.PROGRESSING)
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    assert operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]["data"] == before
    operated.edit(**operated.external)
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")
    assert (
        "2h"
        in operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]["data"]["agentmemory.yaml"]
    )


async def test_a_missing_key_of_the_provider_of_embeddings_is_said_until_it_is_there(operated: Operated) -> None:
    embedding = {"provider": "OpenAI", "model": "small", "dimensions": 512, "secretRef": {"name": "openai"}}
    operated.edit(embedding=embedding)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "openai", "namespace": NAMESPACE}, "data": {}}
    for put, reason in ((None, "SecretMissing"), ({}, "SecretIncomplete"), ({"api-key": "Cg=="}, "SecretIncomplete")):
        if put is not None:
            operated.put(secret | {"data": put})
        await operated.settle()
        assert operated.conditions[conditions.CREDENTIALS] == ("False", reason)
        assert operated.conditions[conditions.READY] == ("False", reason)
        assert "api-key" in operated.message(conditions.CREDENTIALS)
    operated.put(secret | {"data": {"api-key": "c2stc2VjcmV0"}})
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    del operated.kube.objects[SECRET.name, NAMESPACE, "openai"]
    shown = str(operated.kube.objects)
    assert "sk-secret" not in shown and "c2stc2VjcmV0" not in shown
    operated.put(secret | {"data": {"api-key": "c2stc2VjcmV0"}})
    operated.edit(embedding=embedding | {"model": "large"})
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")


async def test_a_missing_key_of_the_server_of_distillation_is_said_as_well(operated: Operated) -> None:
    operated.edit(distillation={"endpoint": "http://chat/v1", "model": "m", "secretRef": {"name": "chat"}})
    await operated.settle()
    assert operated.conditions[conditions.CREDENTIALS] == ("False", "SecretMissing")
    assert "server of spec.distillation" in operated.message(conditions.CREDENTIALS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "chat", "namespace": NAMESPACE}}
    operated.put(secret | {"data": {"api-key": "c2stc2VjcmV0"}})
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_foreign_object_with_our_name_is_left_alone(operated: Operated) -> None:
    name = f"{operated.key[1]}-sidecar"
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE},
               "data": {"theirs": "yes"}}  # fmt: skip
    operated.put(foreign)
    await operated.settle()
    assert operated.conditions[conditions.CREDENTIALS] == ("False", "NameTaken")
    assert operated.conditions[conditions.READY] == ("False", "NameTaken")
    assert operated.kube.objects[CONFIG_MAP.name, NAMESPACE, name]["data"] == {"theirs": "yes"}
    del operated.kube.objects[CONFIG_MAP.name, NAMESPACE, name]
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_the_indexes_of_vectors_follow_the_spec(operated: Operated, stores: LocalStores) -> None:
    await operated.settle()
    schema = f'"{Keys(*operated.key).schema}"'
    index = f"{schema}.event_embeddings_hnsw_1"
    admin = await admin_postgres(stores)
    await admin.execute(
        f"INSERT INTO {schema}.embedding_models (name, dimensions, kept, completed_at) VALUES ('m', 8, true, now())"
    )
    await admin.execute(f"INSERT INTO {schema}.embedding_switch (model) VALUES (1)")
    for kind, there in (("HNSW", True), ("Exact", False)):
        operated.edit(recall={"index": {"kind": kind}})
        await operated.controller.reconcile_once(operated.key)
        assert operated.conditions[conditions.PROGRESSING] == ("True", "Reconciling")
        making = operated.controller._memos[operated.key].indexing
        assert making is not None and await making == ""
        await operated.settle()
        assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")
        assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
        assert (await admin.fetchval("SELECT to_regclass($1)", index) is not None) == there
    await admin.close()


async def test_another_model_is_applied_and_its_progress_is_told(operated: Operated, stores: LocalStores) -> None:
    await operated.settle()
    operated.edit(embedding={"provider": "OpenAI", "model": "small", "dimensions": 1536})
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")
    given = operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]["data"]["agentmemory.yaml"]
    assert yaml.safe_load(given)["spec"]["embedding"] == {"provider": "OpenAI", "dimensions": 1536, "model": "small"}
    schema = f'"{Keys(*operated.key).schema}"'
    admin = await admin_postgres(stores)
    await admin.execute(
        f"INSERT INTO {schema}.embedding_models (name, dimensions, kept, completed_at, scanned, total)"
        " VALUES ('before', 8, true, now(), 0, 0), ('after', 8, true, NULL, 7, 9)"
    )
    await admin.execute(f"INSERT INTO {schema}.embedding_switch (model) VALUES (1)")
    await admin.close()
    pause = await operated.controller.reconcile_once(operated.key)
    found = operated.body["status"]["embedding"]
    assert found.pop("since")
    assert found == {"model": "before", "next": "after", "backFilled": 7, "total": 9}
    assert pause is not None and pause <= 15


async def test_pending_entries_without_a_sidecar_are_drained(operated: Operated, stores: LocalStores) -> None:
    await operated.settle()
    async with admin_redis(stores) as client:
        journal = Keys(*operated.key).journal(1)
        await client.xadd(journal, {"agent": "a", "at": "1000"}, id="1-1")
    await operated.controller.reconcile_once(operated.key)
    job = operated.kube.objects[JOB.name, NAMESPACE, f"{operated.key[1]}-drain"]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["drain"]
    assert operated.body["status"]["consolidation"]["pending"] == 1
    assert operated.conditions[conditions.CONSOLIDATION] == ("False", "LagCritical")
    assert operated.conditions[conditions.READY] == ("False", "LagCritical")


async def test_a_redis_of_another_memory_is_not_ready(operated: Operated, stores: LocalStores) -> None:
    await operated.settle()
    identity = Keys(*operated.key).identity
    async with admin_redis(stores) as client:
        ours = await client.get(identity)
        await client.set(identity, "00000000-0000-4000-8000-000000000000")
        await operated.settle()
        assert operated.conditions[conditions.REDIS] == ("False", "IdentityMismatch")
        assert operated.conditions[conditions.READY] == ("False", "IdentityMismatch")
        await client.set(identity, ours)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_defect_is_said_and_the_rest_is_looked_at(
    operated: Operated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await operated.settle()

    async def fail(work: Work) -> None:
        raise ZeroDivisionError("hunter2")

    steps = [Step(step.kind, fail if step.kind == conditions.SCHEMA else step.run) for step in reconcile.STEPS]
    monkeypatch.setattr(reconcile, "STEPS", steps)
    assert await operated.controller.look(operated.key)
    assert operated.conditions[conditions.SCHEMA] == ("False", "InternalError")
    assert operated.conditions[conditions.READY] == ("False", "InternalError")
    assert operated.conditions[conditions.REDIS][0] == "True"
    assert "ZeroDivisionError" in operated.message(conditions.SCHEMA)
    assert "hunter2" not in str(operated.body), "what an error says may be a secret; the log has it"
    assert any("the reconciliation failed" in record.message for record in caplog.records)
    monkeypatch.undo()
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_an_api_server_that_fails_for_good_is_said_and_one_that_fails_once_is_not(operated: Operated) -> None:
    await operated.settle()
    name = f"{operated.key[1]}-sidecar"
    del operated.kube.objects[CONFIG_MAP.name, NAMESPACE, name]

    def fail(verb: str, kind: str) -> None:
        if (verb, kind) == ("apply", "ConfigMap"):
            raise KubeError(500, "InternalError", 'failed calling webhook "policy.example.com": connection refused')

    operated.kube.before = fail
    await operated.controller.look(operated.key)
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared"), "it may be over in a moment"
    for _ in range(4):
        await operated.controller.look(operated.key)
    assert operated.conditions[conditions.READY] == ("False", "ApiServerFails")
    assert "policy.example.com" in operated.message(conditions.CREDENTIALS)
    operated.kube.before = lambda verb, kind: None
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_an_api_server_that_does_not_answer_leaves_what_was_said(operated: Operated) -> None:
    await operated.settle()

    def hang(verb: str, kind: str) -> None:
        raise KubeError(0, "Unreachable", "the API server does not answer")

    operated.kube.before = hang
    for _ in range(6):
        await operated.controller.look(operated.key)
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_login_that_nobody_knows_any_more_ends(operated: Operated, stores: LocalStores) -> None:
    """A Secret that is lost takes its passwords with it; the login of the other name would be valid for ever."""
    await operated.settle()
    schema = Keys(*operated.key).schema
    operated.annotate(ROTATE_ANNOTATION, "once")
    await operated.settle()
    operated.clock.pass_by(CONFIG.rotation_grace + 1)
    await operated.settle()
    assert await logins_in_stores(operated, stores) == ({f"{schema}_2"}, {f"{schema}_2"})
    del operated.kube.objects[SECRET.name, NAMESPACE, f"{operated.key[1]}-credentials"]
    operated.annotate(ROTATE_ANNOTATION, "")
    await operated.settle()
    secret = operated.kube.objects[SECRET.name, NAMESPACE, f"{operated.key[1]}-credentials"]
    secret["metadata"]["creationTimestamp"] = operated.clock().isoformat()
    await operated.settle()
    both = {f"{schema}_1", f"{schema}_2"}
    assert await logins_in_stores(operated, stores) == (both, both), "sidecars still use it until they notice"
    operated.clock.pass_by(CONFIG.rotation_grace + 1)
    await operated.settle()
    assert await logins_in_stores(operated, stores) == ({f"{schema}_1"}, {f"{schema}_1"})


async def test_logins_that_were_changed_by_hand_are_set_again_but_not_at_every_look(
    operated: Operated, stores: LocalStores
) -> None:
    await operated.settle()
    username = f"{Keys(*operated.key).schema}_1"
    async with admin_redis(stores) as client:
        for doubted in (True, False):
            await client.execute_command("ACL", "SETUSER", username, "resetpass", ">another")
            await operated.controller.reconcile_once(operated.key)
            assert operated.conditions[conditions.CREDENTIALS] == ("False", "LoginNotAccepted")
            await operated.controller.reconcile_once(operated.key)
            assert (operated.conditions[conditions.CREDENTIALS][0] == "True") == doubted
    operated.clock.pass_by(60)
    await operated.controller.reconcile_once(operated.key)
    await operated.settle()
    assert operated.conditions[conditions.CREDENTIALS] == ("True", "Accepted")


async def test_what_is_dropped_in_one_store_keeps_nobody_from_the_logins_that_stay(
    operated: Operated, stores: LocalStores
) -> None:
    """While the other store is away, and the former login cannot be forgotten."""
    await operated.settle()
    schema = Keys(*operated.key).schema
    operated.annotate(ROTATE_ANNOTATION, "once")
    await operated.settle()
    operated.clock.pass_by(CONFIG.rotation_grace + 1)
    operated.body["spec"]["postgres"]["external"]["secretRef"]["name"] = "none"
    async with admin_redis(stores) as client:
        await client.execute_command("ACL", "DELUSER", f"{schema}_2")
        await operated.controller.reconcile_once(operated.key)
        users = {str(name) for name in await client.acl_users()}
    assert {name for name in users if name.startswith(schema)} == {f"{schema}_2"}
