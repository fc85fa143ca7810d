"""Stores of the user's own: what keeps them from being used is said in words that an administrator can act on, and it
recovers once mended; and what deletionPolicy Delete leaves in them, which is nothing."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agentmemory.local.stores import LocalStores
from agentmemory_engine import administration
from agentmemory_engine.keys import Keys
from agentmemory_operator import conditions, finalize, moves
from agentmemory_operator.changes import with_applied_stores
from agentmemory_operator.finalize import FINALIZER, PATIENCE
from agentmemory_operator.kube import AGENT_MEMORY, CONFIG_MAP, SECRET, KubeError
from agentmemory_operator.objects import encode_secret
from agentmemory_operator.work import Work
from support.certificates import Authority
from support.memories import admin_postgres, admin_redis
from support.operators import CONFIG, NAMESPACE, Operated
from support.tls_front import HOST, Front, fronts

_number = count(1)
Spoil = Callable[[Operated], None]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def pair(stores: LocalStores, tmp_path: Path, authority: Authority) -> AsyncIterator[tuple[Front, Front]]:
    redis, postgres = fronts(stores, tmp_path)
    for front in (redis, postgres):
        front.show(authority)
    async with redis.listening(), postgres.listening():
        yield redis, postgres


@pytest.fixture
def operated(stores: LocalStores, pair: tuple[Front, Front], authority: Authority) -> Operated:
    return Operated(f"external-{next(_number)}", stores, *pair, authority)


def change_secret(name: str, **values: str | None) -> Spoil:
    """None takes a member away."""

    def spoil(operated: Operated) -> None:
        renamed = {key.replace("_", "."): value for key, value in values.items()}
        data = {key: value for key, value in (operated.secret(name) | renamed).items() if value is not None}
        operated.kube.objects[SECRET.name, NAMESPACE, name]["data"] = encode_secret(data)

    return spoil


def lose_secret(name: str) -> Spoil:
    def spoil(operated: Operated) -> None:
        del operated.kube.objects[SECRET.name, NAMESPACE, name]

    return spoil


def change_spec(store: str, **values: Any) -> Spoil:
    def spoil(operated: Operated) -> None:
        external = operated.body["spec"][store]["external"] | values
        operated.edit(**{store: {"external": external}})

    return spoil


OTHER = Authority("another").pem


@pytest.mark.parametrize(
    ("spoil", "kind", "reason", "says"),
    [
        (lose_secret("redis"), conditions.REDIS, "SecretMissing", "make it with username and password"),
        (lose_secret("postgres"), conditions.POSTGRES, "SecretMissing", "Secret postgres"),
        (change_secret("redis", password=None), conditions.REDIS, "SecretIncomplete", "lacks password"),
        (change_secret("postgres", username=None), conditions.POSTGRES, "SecretIncomplete", "lacks username"),
        (change_secret("redis", password="wrong"), conditions.REDIS, "LoginRefused", "correct the password"),
        (change_secret("postgres", password="wrong"), conditions.POSTGRES, "LoginRefused", "correct the password"),
        (change_secret("redis", ca_crt=OTHER), conditions.REDIS, "CertificateRefused", "ca.crt"),
        (change_secret("postgres", ca_crt=OTHER), conditions.POSTGRES, "CertificateRefused", "ca.crt"),
        (change_secret("redis", ca_crt="none"), conditions.REDIS, "SecretInvalid", "ca.crt in Secret redis"),
        (change_secret("postgres", ca_crt=f"# für uns\n{OTHER}"), conditions.POSTGRES, "SecretInvalid", "ASCII"),
        (change_secret("redis", username="a\r\nflush_all"), conditions.REDIS, "SecretInvalid", "username"),
        (change_spec("redis", tls=False), conditions.REDIS, "TLSRequired", "set spec.redis.external.tls to true"),
        (change_spec("redis", host="redis.invalid"), conditions.REDIS, "Unreachable", "redis.invalid:"),
        (change_spec("postgres", host="postgres.invalid"), conditions.POSTGRES, "Unreachable", "postgres.invalid:"),
        (change_spec("postgres", database="nothing"), conditions.POSTGRES, "DatabaseMissing",
         'CREATE DATABASE "nothing"'),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_and_recovers_when_mended(
    operated: Operated, spoil: Spoil, kind: str, reason: str, says: str
) -> None:
    before = copy.deepcopy(operated.kube.objects)
    spoil(operated)
    await operated.settle()
    assert operated.conditions[kind] == ("False", reason)
    assert says in operated.message(kind)
    assert operated.conditions[conditions.READY] == ("False", reason)
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Blocked")
    for place, thing in before.items():
        operated.kube.objects[place] = thing
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_policy_that_evicts_is_refused(operated: Operated, stores: LocalStores) -> None:
    async with admin_redis(stores) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            await operated.settle()
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
    assert operated.conditions[conditions.REDIS] == ("False", "WrongEvictionPolicy")
    assert "CONFIG SET maxmemory-policy noeviction" in operated.message(conditions.REDIS)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_secret_that_is_changed_is_noticed_and_mended(operated: Operated) -> None:
    await operated.settle()
    good = operated.secret("postgres")["password"]
    change_secret("postgres", password="wrong")(operated)
    await operated.settle()
    assert operated.conditions[conditions.POSTGRES] == ("False", "LoginRefused")
    assert operated.body["status"]["consolidation"]["pending"] == 0, "the sidecars' own login still sees"
    change_secret("postgres", password=good + "\n")(operated)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def what_is_left(operated: Operated, stores: LocalStores) -> list[str]:
    """Whatever names the memory in either store."""
    keys = Keys(*operated.key)
    async with admin_redis(stores) as client:
        left = [str(one) async for one in client.scan_iter(match=keys.prefix + "*")]
        left += [str(name) for name in await client.acl_users() if str(name).startswith(keys.schema)]
    connection = await admin_postgres(stores)
    for query in (
        "SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)",
        "SELECT nspname FROM pg_namespace WHERE nspname = $1",
    ):
        left += [str(row[0]) for row in await connection.fetch(query, keys.schema)]
    await connection.close()
    return left


def delete(operated: Operated) -> None:
    operated.body["metadata"]["deletionTimestamp"] = operated.clock().isoformat()


async def test_delete_leaves_nothing_in_stores_of_the_users_own(operated: Operated, stores: LocalStores) -> None:
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    assert operated.body["metadata"]["finalizers"] == [FINALIZER]
    assert len(await what_is_left(operated, stores)) > 4
    delete(operated)
    await operated.controller.reconcile_once(operated.key)
    assert (AGENT_MEMORY.name, *operated.key) not in operated.kube.objects
    assert await what_is_left(operated, stores) == []


async def test_delete_erases_where_the_memory_is_and_not_where_its_spec_points_by_now(
    operated: Operated, stores: LocalStores
) -> None:
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    change_spec("redis", host="redis.invalid")(operated)
    delete(operated)
    assert await operated.controller.reconcile_once(operated.key) is None
    assert await what_is_left(operated, stores) == []


async def test_delete_erases_nothing_of_a_memory_that_it_never_served(operated: Operated, stores: LocalStores) -> None:
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    before = await what_is_left(operated, stores)
    operated.body["status"]["applied"]["identity"] = "00000000-0000-4000-8000-000000000000"
    delete(operated)
    assert await operated.controller.reconcile_once(operated.key) is None, "it does not wait for what will never be"
    assert await what_is_left(operated, stores) == before
    said = [one["note"] for (kind, _, _), one in operated.kube.objects.items() if kind == "Event"]
    assert any("never served" in note for note in said)


async def test_a_store_may_have_another_name_where_it_is_the_same(
    operated: Operated, pair: tuple[Front, Front], authority: Authority
) -> None:
    await operated.settle()
    for front in pair:
        front.show(authority, "localhost")
    for store in ("redis", "postgres"):
        change_spec(store, host="localhost")(operated)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")
    assert operated.body["status"]["applied"]["external"]["redis"]["host"] == "localhost"
    assert "localhost" in sidecars_file(operated)


@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_a_move_that_would_leave_the_memory_behind_is_refused(
    operated: Operated, stores: LocalStores, store: str
) -> None:
    await operated.settle()
    before = sidecars_file(operated)
    change_spec(store, host=f"{store}.invalid")(operated)
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", f"{store.capitalize()}Moved")
    assert f"{store}.invalid" in operated.message(conditions.PROGRESSING)
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared"), "what runs is looked at where it is"
    assert sidecars_file(operated) == before
    change_spec(store, host=HOST)(operated)
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")


async def test_a_move_to_a_redis_of_another_memory_is_refused(operated: Operated, stores: LocalStores) -> None:
    """Whatever answers there: the address is another one, so its record is looked at."""
    await operated.settle()
    identity = Keys(*operated.key).identity
    operated.body["status"]["applied"]["external"]["redis"]["port"] = 1
    async with admin_redis(stores) as client:
        ours = await client.getdel(identity)
        await operated.controller.reconcile_once(operated.key)
        assert "holds no memory of this name" in operated.message(conditions.PROGRESSING)
        assert await client.exists(identity) == 0, "nothing is written there"
        await client.set(identity, "00000000-0000-4000-8000-000000000000")
        await operated.controller.reconcile_once(operated.key)
        assert "holds another memory of this name" in operated.message(conditions.PROGRESSING)
        await client.set(identity, ours)
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")


async def test_a_move_to_a_copy_is_refused_while_the_former_one_answers(
    operated: Operated, pair: tuple[Front, Front], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that run go on with the former one: what they say there would never be in the other."""
    await operated.settle()
    look = moves._look_at_redis

    async def as_a_copy(work: Work) -> moves._Seen:
        external = work.memory.spec.redis.external
        if external is not None and external.host == "copy.invalid":
            return replace(
                await look(replace(work, memory=with_applied_stores(work.memory))), servers=frozenset({"another"})
            )
        return await look(work)

    monkeypatch.setattr(moves, "_look_at_redis", as_a_copy)
    change_spec("redis", host="copy.invalid")(operated)
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "RedisMoved")
    assert f"{HOST} still answers" in operated.message(conditions.PROGRESSING)


async def test_a_memory_that_postgres_lost_is_not_begun_anew_in_silence(
    operated: Operated, stores: LocalStores
) -> None:
    await operated.settle()
    keys = Keys(*operated.key)
    connection = await admin_postgres(stores)
    await connection.execute(f"ALTER SCHEMA {keys.schema} RENAME TO {keys.schema}_away")
    for _ in range(3):
        await operated.controller.reconcile_once(operated.key)
    assert operated.conditions[conditions.POSTGRES] == ("False", "IdentityMismatch")
    assert "Restore it from a backup" in operated.message(conditions.POSTGRES)
    assert not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", keys.schema), "room for it"
    await connection.execute(f"ALTER SCHEMA {keys.schema}_away RENAME TO {keys.schema}")
    await connection.close()
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_who_was_given_the_rights_of_a_login_by_hand_is_left_alone(
    operated: Operated, stores: LocalStores
) -> None:
    await operated.settle()
    schema = Keys(*operated.key).schema
    connection = await admin_postgres(stores)
    await connection.execute(f"CREATE ROLE analyst_of_{schema} LOGIN")
    await connection.execute(f"GRANT {schema}_app TO analyst_of_{schema}")
    secret = operated.kube.objects[SECRET.name, NAMESPACE, f"{operated.key[1]}-credentials"]
    secret["metadata"]["creationTimestamp"] = operated.clock().isoformat()
    operated.clock.pass_by(CONFIG.rotation_grace + 1)
    await operated.settle()
    assert await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", f"analyst_of_{schema}")
    await connection.execute(f"DROP ROLE analyst_of_{schema}")
    await connection.close()


async def test_an_address_that_never_answered_may_be_corrected(operated: Operated) -> None:
    change_spec("redis", host="redis.invalid")(operated)
    await operated.settle()
    assert operated.conditions[conditions.REDIS] == ("False", "Unreachable")
    change_spec("redis", host=HOST)(operated)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_no_login_is_made_in_a_redis_of_another_memory(operated: Operated, stores: LocalStores) -> None:
    keys = Keys(*operated.key)
    async with admin_redis(stores) as client:
        await client.set(keys.identity, "00000000-0000-4000-8000-000000000000")
        await operated.settle()
        assert operated.conditions[conditions.REDIS] == ("False", "IdentityMismatch")
        assert not [name for name in await client.acl_users() if str(name).startswith(keys.schema)]
        await client.delete(keys.identity)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


def sidecars_file(operated: Operated) -> str:
    """The configuration that the sidecars are given."""
    config_map = operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]
    return str(config_map["data"]["agentmemory.yaml"])


async def test_retain_leaves_everything_and_needs_no_finalizer(operated: Operated, stores: LocalStores) -> None:
    await operated.settle()
    assert "finalizers" not in operated.body["metadata"]
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    operated.edit(deletionPolicy="Retain")
    await operated.settle()
    assert operated.body["metadata"]["finalizers"] == []


async def test_a_deletion_does_not_wait_for_a_secret_that_is_gone(operated: Operated, stores: LocalStores) -> None:
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    for name in ("redis", "postgres"):
        lose_secret(name)(operated)
    delete(operated)
    await operated.controller.reconcile_once(operated.key)
    assert (AGENT_MEMORY.name, *operated.key) not in operated.kube.objects
    left = [
        one for (kind, _, _), one in operated.kube.objects.items() if kind == "Event" and one["reason"] == "DataLeft"
    ]
    assert Keys(*operated.key).schema in left[0]["note"]


async def test_a_deletion_does_not_hang_on_an_event_that_may_not_be_made(operated: Operated) -> None:
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    for name in ("redis", "postgres"):
        lose_secret(name)(operated)
    delete(operated)

    def forbid(verb: str, kind: str) -> None:
        if kind == "Event":
            raise KubeError(403, "Forbidden", "exceeded quota: few, requested: count/events.events.k8s.io=1")

    operated.kube.before = forbid
    assert await operated.controller.reconcile_once(operated.key) is None


async def test_a_store_that_never_ends_its_answer_holds_nobody_up(
    operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def erase(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    monkeypatch.setattr(finalize, "_LONGEST", 0.1)
    monkeypatch.setattr(administration, "erase", erase)
    delete(operated)
    async with asyncio.timeout(30):
        assert await operated.controller.reconcile_once(operated.key) is not None
    assert operated.body["metadata"]["finalizers"] == [FINALIZER]


async def test_a_deletion_waits_a_while_for_stores_that_are_away(operated: Operated, pair: tuple[Front, Front]) -> None:
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    pair[0].refuse()
    delete(operated)
    assert await operated.controller.reconcile_once(operated.key) is not None
    assert operated.body["metadata"]["finalizers"] == [FINALIZER]
    operated.clock.pass_by(PATIENCE + 1)
    assert await operated.controller.reconcile_once(operated.key) is None
    assert (AGENT_MEMORY.name, *operated.key) not in operated.kube.objects
