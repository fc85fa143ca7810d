"""Names and ids: stable for ever, since stores are full of them."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.errors import InvalidAgentId
from agentmemory_engine.keys import REDIS_COMMANDS, Keys, check_agent, digest_key, event_id, shard_of

agents = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+~=-]{0,127}", fullmatch=True)


def test_names_never_change() -> None:
    keys = Keys("default", "research")
    assert keys.journal(3) == "am:default.research:{default.research/3}:journal"
    assert keys.document(3, "bob") == "am:default.research:{default.research/3}:document:bob"
    assert keys.channel(3, "c") == "am:default.research:{default.research/3}:channel:c"
    assert keys.channel_state(3, "c") == "am:default.research:{default.research/3}:channel-state:c"
    assert keys.log(3, "bob") == "am:default.research:{default.research/3}:log:bob"
    assert keys.about(3, "bob") == "am:default.research:{default.research/3}:about:bob"
    assert keys.records(3, "bob") == "am:default.research:{default.research/3}:records:bob"
    assert keys.vectors(3, "bob") == "am:default.research:{default.research/3}:vectors:bob"
    assert keys.schema == "am_default_research_4346fbd4"
    assert [shard_of(agent, 16) for agent in ("a", "bob", "agent-1")] == [15, 2, 10]
    assert str(event_id("bob", digest_key("k"), 0)) == "d0327172-61a5-8489-a4c2-dbe9f946965e"


@given(agents, st.integers(1, 1024))
def test_every_agent_has_a_shard(agent: str, shards: int) -> None:
    assert check_agent(agent) == agent
    assert 0 <= shard_of(agent, shards) < shards


@given(st.tuples(agents, st.text(), st.integers(0, 1000)), st.tuples(agents, st.text(), st.integers(0, 1000)))
def test_ids_differ_where_agent_key_or_index_differ(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    ids = [event_id(agent, digest_key(key), index) for agent, key, index in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)


@given(st.text(max_size=140))
def test_an_agent_id_never_breaks_out_of_its_key(agent: str) -> None:
    try:
        check_agent(agent)
    except InvalidAgentId:
        return
    assert not set(agent) & set("{}/ \n\x00*?[]")


@given(st.text("abcAB-.09", min_size=1, max_size=63), st.text("abcAB-.09", min_size=1, max_size=253))
def test_a_schema_leaves_room_for_role_suffixes(namespace: str, name: str) -> None:
    schema = Keys(namespace, name).schema
    assert len(schema + "_login_b") <= 63
    assert schema.isascii()


def test_schemas_of_similar_names_differ() -> None:
    assert Keys("a-b", "c").schema != Keys("a", "b-c").schema


def test_a_script_uses_no_command_that_the_acl_refuses() -> None:
    used: set[str] = set()
    for script in (one for one in files("agentmemory_engine.scripts").iterdir() if one.name.endswith(".lua")):
        for command, sub in re.findall(r"p?call\('(\w+)'(?:, '(\w+)')?", script.read_text()):
            container = command in ("XGROUP", "XINFO", "SCRIPT")
            used.add(f"{command}|{sub}".lower() if container else command.lower())
    assert {"xadd", "xgroup|create"} <= used <= set(REDIS_COMMANDS)


def test_the_acl_gives_no_category_and_no_command_that_sees_other_keys() -> None:
    rules = Keys("ns", "name").acl()
    assert "~am:ns.name:*" in rules and "-@all" in rules
    forbidden = {"scan", "keys", "randomkey", "dbsize", "flushall", "flushdb", "config", "acl", "select", "function"}
    assert not any(rule.startswith("+@") for rule in rules)
    assert not {rule.removeprefix("+") for rule in rules} & forbidden
    with pytest.raises(InvalidAgentId):
        check_agent("{other.memory/0}")
