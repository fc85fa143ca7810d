"""Whole reconciliations of memories with one store: the other one is neither made, nor asked, nor told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentmemory.local.stores import LocalStores
from agentmemory_engine.events import TimelineQuery
from agentmemory_engine.identity_records import new_identity
from agentmemory_engine.keys import Keys
from agentmemory_engine.turns import Event, Turn
from agentmemory_operator import conditions
from agentmemory_operator.finalize import FINALIZER
from agentmemory_operator.kube import AGENT_MEMORY, CONFIG_MAP, JOB, SECRET
from agentmemory_operator.names import RECONCILE_ANNOTATION, ROTATE_ANNOTATION
from agentmemory_operator.resources.sidecar import login_keys
from agentmemory_operator.spec import read
from agentmemory_sidecar.config import load_config
from agentmemory_sidecar.opening import make_memory
from support.certificates import Authority
from support.memories import admin_postgres, admin_redis
from support.operators import CONFIG, NAMESPACE, Operated
from support.tls_front import Front, fronts

_number = count(1)
OTHER = {"Redis": "postgres", "Postgres": "redis"}
USED = {"Redis": "redis", "Postgres": "postgres"}
MODES = list(OTHER)
in_both = pytest.mark.parametrize("mode", MODES)

Make = Callable[..., Operated]


@pytest.fixture
async def pair(stores: LocalStores, tmp_path: Path) -> AsyncIterator[dict[str, Front]]:
    redis, postgres = fronts(stores, tmp_path)
    async with redis.listening(), postgres.listening():
        yield {"redis": redis, "postgres": postgres}


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def make(stores: LocalStores, pair: dict[str, Front], authority: Authority) -> Make:
    """A memory in a mode; the store that it does not use is away, and the Secret of its administrator, too."""
    for front in pair.values():
        front.show(authority)

    def made(mode: str, name: str = "") -> Operated:
        name = name or f"alone-{next(_number)}"
        operated = Operated(name, stores, pair["redis"], pair["postgres"], authority, mode=mode)
        if unused := OTHER.get(mode):
            pair[unused].refuse()
            del operated.kube.objects[SECRET.name, NAMESPACE, unused]
        return operated

    return made


def change_mode(operated: Operated, mode: str) -> None:
    """As a person does, who has to take the other store out."""
    kept = {key: value for key, value in operated.body["spec"].items() if key not in ("redis", "postgres")}
    operated.body["spec"] = kept
    operated.edit(**operated.in_mode(mode))


def configuration(operated: Operated) -> Any:
    config_map = operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{operated.key[1]}-sidecar"]
    return yaml.safe_load(config_map["data"]["agentmemory.yaml"])


async def logins(operated: Operated, stores: LocalStores) -> dict[str, set[str]]:
    """The memory's usernames, by store."""
    schema = Keys(*operated.key).schema
    async with admin_redis(stores) as client:
        users = {str(name) for name in await client.acl_users()}
    connection = await admin_postgres(stores)
    rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)", schema)
    await connection.close()
    return {
        "redis": {name for name in users if name.startswith(schema)},
        "postgres": {row["rolname"] for row in rows},
    }


@in_both
async def test_a_memory_of_one_store_becomes_ready_without_the_other(
    make: Make, stores: LocalStores, mode: str
) -> None:
    operated = make(mode)
    await operated.settle()
    used, unused, name = USED[mode], OTHER[mode], operated.key[1]
    good = {kind for kind, (status, _) in operated.conditions.items() if status == "True"}
    assert good == {
        conditions.READY, *conditions.needed((used,)), conditions.CONSOLIDATION, conditions.SIDECARS,
    }  # fmt: skip
    assert set(operated.conditions) - good == {conditions.PROGRESSING, conditions.PAUSED}
    assert operated.conditions[conditions.CONSOLIDATION] == ("True", "NotUsed")
    status = operated.body["status"]
    assert {"redis", "postgres"} & set(status) == {used}
    assert ("schema" in status) == (mode == "Postgres")
    assert (status["consolidation"]["pending"], status["consolidation"]["lagSeconds"]) == (0, 0)
    assert status["applied"]["mode"] == mode and unused not in status["applied"]
    assert set(operated.secret(f"{name}-credentials")) == {f"{used}-username", f"{used}-password"}
    told = configuration(operated)["spec"]
    assert told["mode"] == mode and used in told and unused not in told
    assert await logins(operated, stores) == {used: {f"{Keys(*operated.key).schema}_1"}, unused: set()}
    before = operated.kube.writes
    operated.new_controller()
    await operated.controller.reconcile_once(operated.key)
    assert operated.kube.writes == before


@pytest.mark.parametrize("mode", ["Hybrid", "Postgres"])
async def test_what_the_operator_made_is_all_that_a_sidecar_needs(make: Make, tmp_path: Path, mode: str) -> None:
    operated = make(mode)
    await operated.settle()
    name = operated.key[1]
    held = operated.secret(f"{name}-credentials")
    mounted = {key: held[key] for key in login_keys(read(operated.body).spec.stores)}
    mounted |= operated.kube.objects[CONFIG_MAP.name, NAMESPACE, f"{name}-sidecar"]["data"]
    for key, value in mounted.items():
        (tmp_path / key).write_text(value)
    places = {"AGENTMEMORY_CONFIG": tmp_path / "agentmemory.yaml", "AGENTMEMORY_CREDENTIALS_DIR": tmp_path}
    config, _ = load_config({key: str(place) for key, place in places.items()})
    async with make_memory(config) as memory:
        assert str(operated.body["status"]["applied"]["identity"]).endswith(await memory.identity())
        while await memory.check():
            await asyncio.sleep(0.02)
        await memory.record("scout", Turn(events=[Event(content="it works")]))
        (found,) = (await memory.timeline("scout", TimelineQuery())).events
    assert found.content == "it works"


@in_both
async def test_logins_rotate_in_the_one_store(make: Make, stores: LocalStores, mode: str) -> None:
    operated = make(mode)
    await operated.settle()
    used, schema = USED[mode], Keys(*operated.key).schema
    operated.annotate(ROTATE_ANNOTATION, "once")
    await operated.settle()
    assert operated.secret(f"{operated.key[1]}-credentials")[f"{used}-username"] == f"{schema}_2"
    assert operated.body["status"]["credentials"]["rotation"] == "once"
    assert (await logins(operated, stores))[used] == {f"{schema}_1", f"{schema}_2"}
    operated.clock.pass_by(CONFIG.rotation_grace + 1)
    await operated.settle()
    assert (await logins(operated, stores))[used] == {f"{schema}_2"}
    left = operated.secret(f"{operated.key[1]}-credentials")
    assert set(left) == {f"{used}-username", f"{used}-password", "rotation"}


@in_both
async def test_a_change_of_the_mode_is_refused_and_what_runs_goes_on(
    make: Make, pair: dict[str, Front], mode: str
) -> None:
    operated = make(mode)
    await operated.settle()
    before = configuration(operated), set(operated.conditions)
    for other in {"Hybrid", "Redis", "Postgres"} - {mode}:
        change_mode(operated, other)
        await operated.settle()
        assert operated.conditions[conditions.PROGRESSING] == ("False", "ModeChanged")
        assert f"cannot change from {mode} to {other}" in operated.message(conditions.PROGRESSING)
        assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
        assert (configuration(operated), set(operated.conditions)) == before
    change_mode(operated, mode)
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")


async def test_of_a_hybrid_memory_both_stores_are_looked_at_whatever_its_spec_says(
    make: Make, pair: dict[str, Front]
) -> None:
    operated = make("Hybrid")
    await operated.settle()
    for other in MODES:
        change_mode(operated, other)
        await operated.settle()
        assert operated.conditions[conditions.PROGRESSING] == ("False", "ModeChanged")
        assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
        assert set(conditions.NEEDED) <= set(operated.conditions)
    pair["postgres"].refuse()
    await operated.controller.reconcile_once(operated.key)
    assert operated.conditions[conditions.READY][0] == operated.conditions[conditions.POSTGRES][0] == "False"


@in_both
async def test_a_store_that_is_away_is_said_and_nothing_is_behind(
    make: Make, pair: dict[str, Front], mode: str
) -> None:
    operated = make(mode)
    await operated.settle()
    pair[USED[mode]].refuse()
    await operated.controller.reconcile_once(operated.key)
    assert operated.conditions[conditions.READY][0] == "False"
    assert operated.conditions[conditions.CONSOLIDATION] == ("True", "NotUsed")
    assert "pending" not in operated.body["status"]["consolidation"], "what cannot be seen is not said"
    assert (JOB.name, NAMESPACE, f"{operated.key[1]}-drain") not in operated.kube.objects


@in_both
async def test_an_address_may_change_where_the_memory_is_there_already(
    make: Make, pair: dict[str, Front], authority: Authority, mode: str
) -> None:
    operated = make(mode)
    await operated.settle()
    used = USED[mode]
    external = operated.body["spec"][used]["external"]
    operated.edit(**{used: {"external": external | {"host": f"{used}.invalid"}}})
    await operated.settle()
    assert operated.conditions[conditions.PROGRESSING] == ("False", f"{used.capitalize()}Moved")
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    pair[used].show(authority, "localhost")
    operated.edit(**{used: {"external": external | {"host": "localhost"}}})
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    assert operated.conditions[conditions.PROGRESSING] == ("False", "Settled")
    assert configuration(operated)["spec"][used]["external"]["host"] == "localhost"


@in_both
async def test_delete_leaves_nothing_in_the_one_store(make: Make, stores: LocalStores, mode: str) -> None:
    operated = make(mode)
    operated.edit(deletionPolicy="Delete")
    await operated.settle()
    assert operated.body["metadata"]["finalizers"] == [FINALIZER]
    operated.body["metadata"]["deletionTimestamp"] = operated.clock().isoformat()
    assert await operated.controller.reconcile_once(operated.key) is None
    assert (AGENT_MEMORY.name, *operated.key) not in operated.kube.objects
    assert await logins(operated, stores) == {"redis": set(), "postgres": set()}
    keys = Keys(*operated.key)
    async with admin_redis(stores) as client:
        assert [key async for key in client.scan_iter(match=keys.prefix + "*")] == []
    connection = await admin_postgres(stores)
    assert not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", keys.schema)
    await connection.close()
    told = [one["reason"] for (kind, _, _), one in operated.kube.objects.items() if kind == "Event"]
    assert "DataLeft" not in told


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("4c1c6a34-5d2f-4a54-9d9c-0d8f1f1f6f51", "a memory of another mode"),
        ("Redis 8 4c1c6a34-5d2f-4a54-9d9c-0d8f1f1f6f51", "made with 8 shards"),
    ],
)
async def test_no_login_is_made_in_a_redis_of_a_memory_of_another_make(
    make: Make, stores: LocalStores, record: str, says: str
) -> None:
    operated = make("Redis")
    keys = Keys(*operated.key)
    async with admin_redis(stores) as client:
        await client.set(keys.identity, record)
        await operated.settle()
        assert operated.conditions[conditions.READY] == ("False", "IdentityMismatch")
        assert says in operated.message(conditions.REDIS)
        assert (await logins(operated, stores))["redis"] == set()
        assert (await client.get(keys.identity)).decode() == record
        await client.delete(keys.identity)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_memory_that_is_made_again_finds_what_redis_holds(make: Make, stores: LocalStores) -> None:
    first = make("Redis")
    await first.settle()
    again = make("Redis", first.key[1])
    await again.settle()
    assert again.body["status"]["applied"]["identity"] == first.body["status"]["applied"]["identity"]
    assert again.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_memory_that_redis_lost_goes_on_as_the_same_and_is_told_of(make: Make, stores: LocalStores) -> None:
    operated = make("Redis")
    await operated.settle()
    keys, known = Keys(*operated.key), operated.body["status"]["applied"]["identity"]
    async with admin_redis(stores) as client:
        await client.delete(keys.identity)
        await operated.settle()
        assert (await client.get(keys.identity)).decode() == known
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")
    told = [one["reason"] for (kind, _, _), one in operated.kube.objects.items() if kind == "Event"]
    assert told.count("MemoryLost") == 1


async def test_a_redis_that_holds_another_memory_by_now_is_not_ready(make: Make, stores: LocalStores) -> None:
    operated = make("Redis")
    await operated.settle()
    keys, known = Keys(*operated.key), operated.body["status"]["applied"]["identity"]
    async with admin_redis(stores) as client:
        await client.set(keys.identity, new_identity(4))
        await operated.settle()
        assert operated.conditions[conditions.READY] == ("False", "IdentityMismatch")
        assert "another memory of this name" in operated.message(conditions.REDIS)
        await client.set(keys.identity, known)
    await operated.settle()
    assert operated.conditions[conditions.READY] == ("True", "AsDeclared")


async def test_a_paused_memory_is_not_begun(make: Make, stores: LocalStores) -> None:
    operated = make("Redis")
    operated.annotate(RECONCILE_ANNOTATION, "disabled")
    await operated.settle()
    assert operated.conditions[conditions.READY][0] == "False"
    async with admin_redis(stores) as client:
        assert await client.get(Keys(*operated.key).identity) is None
