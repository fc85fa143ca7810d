"""Slots of a Redis Cluster: the specification's own examples, and views of nodes."""

from __future__ import annotations

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.keys import Keys
from agentmemory_engine.slots import SLOTS, SlotMap, parse_view, slot_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        ("123456789", "123456789"), ("{user1000}.following", "user1000"), ("foo{{bar}}zap", "{bar"),
        ("foo{bar}{zap}", "bar"), ("foo{}{bar}", "foo{}{bar}"), ("foo{bar", "foo{bar"),
    ],
)  # fmt: skip
def test_only_the_first_hash_tag_counts(key: str, hashed: str) -> None:
    assert slot_of(key) == binascii.crc_hqx(hashed.encode(), 0) % SLOTS
    assert slot_of("123456789") == 0x31C3


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,40}", fullmatch=True), st.integers(0, 1023), st.text(max_size=20))
def test_all_keys_of_a_shard_are_in_one_slot(name: str, shard: int, agent: str) -> None:
    keys = Keys("ns", name)
    tag = f"ns.{name}/{shard}"
    named = {keys.state(shard), keys.journal(shard), keys.document(shard, agent), keys.channel(shard, agent)}
    assert {slot_of(key) for key in named} == {slot_of(tag)}


def test_a_view_names_masters_by_slot_and_replicas_as_well() -> None:
    info = "cluster_state:ok\r\ncluster_current_epoch:7\r\n"
    ranges = [
        [0, 99, [b"10.0.0.1", 6379, b"id", {}], [b"10.0.0.2", 6380, b"id", {}]],
        [100, 100, [b"", 6381, b"id", {}]],
        [200, SLOTS - 1, ["fd00::1", 6379, "id"], [b"?", 6379, b"id", {}]],
    ]
    view = parse_view(info, ranges, "redis.example")
    assert (view.masters[0], view.masters[99], view.masters[100]) == ("10.0.0.1:6379",) * 2 + ("redis.example:6381",)
    assert (view.masters[101], view.masters[200], view.masters[-1]) == (None, "[fd00::1]:6379", "[fd00::1]:6379")
    assert view.nodes == {"10.0.0.1:6379", "10.0.0.2:6380", "redis.example:6381", "[fd00::1]:6379"}
    assert view.rank == (True, 7) and len(view.masters) == SLOTS


def test_of_several_views_the_healthy_one_of_the_latest_epoch_holds() -> None:
    views = [SlotMap(False, 9), SlotMap(True, 7), SlotMap(True, 8)]
    assert max(views, key=lambda view: view.rank).epoch == 8
