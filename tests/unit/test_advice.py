"""Advice: which mode fits which workload, what it costs, and an AgentMemory that the CRD takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft4Validator
from typer.testing import CliRunner, Result

from agentmemory.advice import InvalidWorkload, Workload, advise, costs_of, manifest, read_workload
from agentmemory.advice.decision import Mode
from agentmemory.advice.quantities import (
    Bytes,
    Seconds,
    parse_bytes,
    parse_seconds,
    round_up,
    write_bytes,
    write_seconds,
)
from agentmemory.advice.workload import describe, make_workload
from agentmemory.cli.app import app
from agentmemory_operator import spec as operator_spec
from agentmemory_sidecar.quantities import parse_duration, parse_size
from support.stub_sidecar import StubSidecar, reply, serve_in_thread

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "agentmemories.agentmemory.io.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
DAY = Seconds(86_400)
WEEK, QUARTER = Seconds(7 * DAY), Seconds(90 * DAY)

TABLE: list[tuple[dict[str, Any], Mode]] = [
    # Few agents that keep all: one store will do.
    ({"agents": 5}, "Postgres"),
    ({"agents": 5, "has_postgres": True}, "Postgres"),
    # Fifty agents that poll ten times a second, as in the article.
    ({"agents": 50, "polls_per_second": 10.0}, "Hybrid"),
    ({"agents": 50, "polls_per_second": 10.0, "retention": QUARTER}, "Hybrid"),
    # Many turns.
    ({"agents": 10_000, "turns_per_session": 200.0, "polls_per_second": 0.0}, "Hybrid"),
    # Agents that may not stand still.
    ({"agents": 5, "outage": Seconds(600)}, "Hybrid"),
    # Channels.
    ({"agents": 5, "channels": True}, "Hybrid"),
    ({"agents": 5, "channels": True, "retention": WEEK}, "Redis"),
    # Scratch memory.
    ({"agents": 50, "polls_per_second": 10.0, "retention": DAY, "loss": "any"}, "Redis"),
    ({"agents": 5, "retention": DAY, "loss": "any"}, "Redis"),
    ({"agents": 5, "retention": DAY, "loss": "any", "has_postgres": True}, "Postgres"),
    ({"agents": 5, "retention": DAY, "has_redis": True}, "Redis"),
    # The same, but nothing may be lost, or it does not fit into memory.
    ({"agents": 50, "polls_per_second": 10.0, "retention": DAY, "loss": "none"}, "Hybrid"),
    ({"agents": 50, "polls_per_second": 10.0, "retention": WEEK, "redis_memory": Bytes(1 << 20)}, "Hybrid"),
    ({"agents": 5, "loss": "none"}, "Postgres"),
    # Both are there.
    ({"agents": 50, "polls_per_second": 10.0, "has_redis": True, "has_postgres": True}, "Hybrid"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "mode"), TABLE)
def test_the_mode_that_fits(members: dict[str, Any], mode: Mode) -> None:
    advice = advise(Workload(**members))
    assert advice.mode == mode, advice.verdicts
    assert [verdict.mode for verdict in advice.verdicts if not verdict.fits and not verdict.against] == []
    assert advice.verdicts[0].mode == mode and advice.reasons


def test_a_redis_keeps_as_many_turns_as_its_retention_has() -> None:
    busy = Workload(agents=5, turns_per_session=500.0, sessions_per_day=4.0, retention=WEEK, loss="any")
    assert manifest(advise(busy))["spec"]["retention"] == {"events": "7d", "turns": 14_000}
    quiet = Workload(agents=5, turns_per_session=1.0, sessions_per_day=1.0, retention=WEEK, loss="any")
    assert manifest(advise(quiet))["spec"]["retention"] == {"events": "7d", "turns": 1000}
    endless = Workload(agents=1, turns_per_session=5000.0, sessions_per_day=4.0, retention=WEEK, loss="any")
    assert any("100,000" in reason for one in advise(endless).verdicts for reason in one.against)


def test_costs_are_what_was_measured() -> None:
    workload = Workload(
        agents=1000, turns_per_session=500.0, sessions_per_day=1.0, retention=DAY, event_size=Bytes(355), peak=1.0
    )
    costs = costs_of(workload, "Hybrid")
    # 1,000 agents with 500 events and their vectors: 683 + 458 + 16 MB were measured of a table with a covering index.
    held = costs.postgres_parts["events"] + costs.postgres_parts["vectors"]
    assert 1_157_000_000 * 0.9 < held < 1_157_000_000 * 1.35
    # An hour of turns, a document and a window for each agent, and the keys of a day.
    assert costs.redis_parts["idempotency keys"] == 500_000 * 167
    assert costs.redis_parts["documents"] == 1000 * (2048 + 164)
    assert costs.redis_parts["journal, while Postgres is down"] == pytest.approx(
        500_000 / 24 * (130 + 1.02 * 415), rel=0.01
    )
    assert costs.redis_memory * 0.7 > sum(costs.redis_parts.values())
    assert costs_of(workload, "Postgres").redis_memory == 0 == costs_of(workload, "Redis").postgres_disk


def test_what_to_mind_is_said() -> None:
    def minded(**members: Any) -> str:
        return " ".join(advise(Workload(agents=50, polls_per_second=10.0, **members)).mind)

    assert "appendfsync always" in minded(loss="none") and "synchronous standby" in minded(loss="none")
    assert "up to 2 s" in minded()
    assert "expect" in minded(turns_per_session=1000.0) and "expect" not in minded(turns_per_session=10.0)
    assert "cores busy" in minded(turns_per_session=100_000.0)
    assert "Redis Cluster" in minded(redis_memory=Bytes(1 << 20))
    assert "after a year" in minded() and "after a year" not in minded(retention=WEEK)


rates = st.floats(0, 10_000, allow_nan=False)
durations = st.integers(10, 3650 * 86_400).map(Seconds)
sizes = st.integers(1, 1 << 22).map(Bytes)
workloads = st.builds(
    Workload, agents=st.integers(1, 1_000_000), concurrent_agents=st.none() | st.integers(1, 1_000_000),
    sessions_per_day=rates, turns_per_session=rates, events_per_turn=st.floats(0, 100), event_size=sizes,
    document_size=sizes, polls_per_second=rates, peak=st.floats(1, 100),
    recall=st.sampled_from(["semantic", "keyword", "none"]), dimensions=st.integers(1, 4000),
    retention=st.none() | durations, loss=st.sampled_from(["none", "seconds", "any"]), channels=st.booleans(),
    outage=st.none() | st.integers(1, 86_400).map(Seconds), ttl=durations, has_redis=st.booleans(),
    has_postgres=st.booleans(), redis_memory=sizes,
)  # fmt: skip


@given(workloads)
def test_whatever_the_workload_one_mode_fits_and_its_costs_add_up(workload: Workload) -> None:
    advice = advise(workload)
    assert {verdict.mode for verdict in advice.verdicts} == {"Hybrid", "Redis", "Postgres"}
    assert advice.verdicts[0].fits
    for verdict in advice.verdicts:
        costs = verdict.costs
        assert costs.redis_memory >= sum(costs.redis_parts.values()) and costs.redis_disk >= costs.redis_memory * 0.7
        assert costs.postgres_disk >= sum(costs.postgres_parts.values())
        assert min(costs.redis_memory, costs.redis_disk, costs.postgres_memory, costs.postgres_disk) >= 0
    json.dumps(describe(workload))
    assert make_workload(_written(describe(workload)), "again") == workload


def _written(described: dict[str, Any]) -> dict[str, Any]:
    seconds = {
        name: f"{described[name]:.0f}s" for name in ("retention", "outage", "ttl") if described[name] is not None
    }
    return described | seconds


@given(workloads, st.sampled_from(["agents", "turns_per_session", "event_size", "document_size"]))
def test_more_never_costs_less(workload: Workload, name: str) -> None:
    value = getattr(workload, name)
    more = msgspec.structs.replace(workload, **{name: type(value)(value * 2 + 1)})
    for mode in ("Hybrid", "Redis", "Postgres"):
        before, after = costs_of(workload, mode), costs_of(more, mode)
        assert after.redis_memory >= before.redis_memory and after.postgres_disk >= before.postgres_disk


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(value) for name, value in node.items() if name != "format"}
    is_open = "additionalProperties" in node or not isinstance(node.get("properties"), dict) or "type" not in node
    return closed if is_open else closed | {"additionalProperties": False}


VALIDATOR = Draft4Validator(_closed(SCHEMA))


@given(workloads)
def test_the_manifest_is_one_that_the_crd_takes(workload: Workload) -> None:
    resource = yaml.safe_load(yaml.safe_dump(manifest(advise(workload))))
    # Of OpenAPI's dialect only what is JSON Schema; unknown fields are an error here, where the API server drops them.
    VALIDATOR.validate(resource)
    read = operator_spec.read(resource | {"metadata": resource["metadata"] | {"namespace": "default", "uid": "u"}})
    spec = resource["spec"]
    assert read.spec.mode == spec["mode"]
    assert ("redis" in spec) == (spec["mode"] != "Postgres") and ("postgres" in spec) == (spec["mode"] != "Redis")
    assert parse_duration(spec["workingMemory"]["ttl"]) >= 10  # maxDelay is 5 s, and the warning comes at half of it
    embedding = spec["embedding"]
    assert embedding["provider"] != "Local" or embedding["dimensions"] == operator_spec.LOCAL_DIMENSIONS
    assert (embedding["provider"] == "OpenAI") == ("model" in embedding)
    for store in ("redis", "postgres"):
        for size in _sizes(spec.get(store, {})):
            assert parse_size(size) > 0


def _sizes(store: dict[str, Any]) -> list[str]:
    managed = store.get("managed", {})
    resources = managed.get("resources", {})
    found = [managed["storage"]["size"]] if managed else []
    return found + [part["memory"] for part in resources.values()]


@given(st.integers(1, 10**9))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    text = write_seconds(milliseconds / 1000)
    assert parse_seconds(text) == pytest.approx(milliseconds / 1000) == pytest.approx(parse_duration(text))


@given(st.integers(0, 1 << 45), st.integers(1 << 20, 1 << 31))
def test_a_size_is_rounded_up_and_not_by_much(size: int, least: int) -> None:
    rounded = parse_bytes(round_up(size, least=least))
    assert max(size, least) <= rounded <= max(2 * max(size, least), max(size, least) + (1 << 30))
    assert int(parse_size(round_up(size, least=least))) == int(rounded)


def test_sizes_are_written_for_people() -> None:
    written = [write_bytes(size) for size in (0, 999, 2048, 123_456_789, 5 << 30, 3 << 50)]
    assert written == ["0 bytes", "999 bytes", "2.0 KiB", "118 MiB", "5.0 GiB", "3072 TiB"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("agents: 0", "agents"),
        ("{}", "agents"),
        ("[1]", "an object"),
        ("agents: 5\npolls: 3", "polls"),
        ("agents: 5\nretention: soon", "retention"),
        ("agents: 5\nretention: 0s", "retention"),
        ("agents: 5\neventSize: much", "eventSize"),
        ("agents: 5\nttl: 1s", "ttl"),
        ("agents: 5\nloss: some", "loss"),
        ("agents: [", "neither YAML nor JSON"),
    ],
)
def test_what_is_no_workload_is_refused_with_its_field(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(text)
    with pytest.raises(InvalidWorkload, match=why):
        read_workload(file)


def tool(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", **environment}).invoke(app, ["advise", *arguments])


def test_a_file_and_options_together(tmp_path: Path) -> None:
    file = tmp_path / "workload.json"
    file.write_text('{"agents": 50, "pollsPerSecond": 10, "retention": "7d"}')
    result = tool(str(file), "--retention", "90d", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["mode"] == "Hybrid" and answer["workload"]["retention"] == 90 * 86_400
    assert answer["manifest"]["spec"]["retention"] == {"events": "90d"}
    assert answer["workload"]["pollsPerSecond"] == 10
    assert answer["verdicts"][0]["mode"] == "Hybrid"


def test_a_person_reads_the_mode_the_reasons_the_costs_and_the_yaml() -> None:
    result = tool("--agents", "50", "--polls-per-second", "10")
    assert "Mode: Hybrid" in result.stdout and "The others:" in result.stdout
    assert "of memory" in result.stdout and "of disk" in result.stdout
    resource = yaml.safe_load(result.stdout.partition("An AgentMemory to begin with:")[2])
    assert resource["spec"]["mode"] == "Hybrid"


@pytest.mark.parametrize(
    "arguments", [(), ("--agents", "0"), ("--agents", "5", "--retention", "soon"), ("--agent", "")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert tool(*arguments).exit_code == 2


STATUS = {
    "lag_seconds": 90.0, "pending": 0, "dead_letters": 2, "unembedded": 0, "unembeddable": 1,
    "persistence": "append-only file, fsync every second", "shards": [{"shard": 0, "open": True}], "degraded": [],
}  # fmt: skip


def event(number: int, session: str) -> dict[str, Any]:
    return {
        "id": f"e{number}", "position": f"3.1-{number // 2}", "index": number % 2, "type": "message", "role": "user",
        "content": "x" * 100, "session": session, "at": "2026-01-12T09:00:00Z", "accepted_at": "2026-01-12T09:00:00Z",
    }  # fmt: skip


@pytest.fixture
def stub() -> Any:
    with serve_in_thread() as server:
        yield server


def test_a_workload_is_counted_in_a_live_memory(stub: StubSidecar) -> None:
    events = [event(number, f"s{number // 20}") for number in range(40)]
    stub.will(
        reply(STATUS), reply({"events": events, "cursor": None, "degraded": []}),
        reply({"step": 3}, ETag='"3.1-1"'),
    )  # fmt: skip
    result = tool("--agent", "research-1", "--agents", "200", "--json", AGENTMEMORY_URL=stub.url)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    workload = cast(dict[str, Any], answer["workload"])
    assert (workload["agents"], workload["eventSize"], workload["documentSize"]) == (200, 100, 10)
    assert (workload["eventsPerTurn"], workload["turnsPerSession"]) == (2.0, 10.0)
    assert 0 < workload["sessionsPerDay"] < 2
    found = " ".join(answer["findings"])
    assert "90 s behind" in found and "2 dead letters" in found and "fsync every second" in found


def test_a_memory_without_events_cannot_be_counted_from(stub: StubSidecar) -> None:
    stub.will(reply(STATUS), reply({"events": [], "cursor": None, "degraded": []}))
    result = tool("--agent", "nobody", AGENTMEMORY_URL=stub.url)
    assert result.exit_code == 1 and "no events yet" in result.stderr
