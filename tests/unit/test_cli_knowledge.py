"""The commands on sessions and knowledge against a server on loopback: what they send, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from agentmemory.cli.app import app
from support.stub_sidecar import StubSidecar, problem, reply, serve_in_thread

SESSION = {
    "id": "day-1", "started_at": "2026-01-12T09:00:00Z", "last_event_at": None, "ended_at": "2026-01-12T10:00:00Z",
    "metadata": {"task": "[red]q2[/red]"},
}  # fmt: skip
FACT = {
    "id": "f1", "origin": "f1", "key": "acme.price", "topic": "suppliers", "content": "[red]1.20[/red] a piece",
    "confidence": 0.9, "sources": [], "believed_from": "2026-01-12T09:00:00Z", "believed_until": None,
}  # fmt: skip
Tool = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[StubSidecar]:
    with serve_in_thread() as server:
        yield server


@pytest.fixture
def tool(stub: StubSidecar) -> Tool:
    environment = {"AGENTMEMORY_URL": stub.url, "COLUMNS": "200", "AGENTMEMORY_AGENT": "a"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, list(arguments))


def test_a_session_is_started_and_ended(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply(SESSION, status=201))
    shown = tool("sessions", "start", "day-1", "--metadata", '{"task": "q2"}')
    assert shown.exit_code == 0 and "day-1" in shown.stdout and "[red]q2[/red]" in shown.stdout
    ended = tool("sessions", "end", "day-1", "--json")
    assert json.loads(ended.stdout)["ended_at"] == SESSION["ended_at"]
    tool("sessions", "start")
    started, changed, nameless = stub.seen
    assert (started.method, started.path, started.json()) == (
        "POST", "/v1/agents/a/sessions", {"id": "day-1", "metadata": {"task": "q2"}},
    )  # fmt: skip
    assert "Idempotency-Key" in started.headers and nameless.json() == {}
    assert (changed.method, changed.path, changed.json()) == ("PATCH", "/v1/agents/a/sessions/day-1", {"ended": True})


def test_sessions_are_listed_page_by_page_up_to_the_limit(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"sessions": [SESSION] * 1000, "cursor": "c", "degraded": ["unflushed"]}))
    listed = tool("sessions", "list", "--open", "--metadata", '{"n": 1}', "-n", "1500", "--json")
    assert listed.exit_code == 0 and "unflushed" in listed.stderr
    queries = [dict(seen.query) for seen in stub.seen]
    assert queries == [
        {"ended": "false", "metadata": '{"n": 1}', "limit": "1000"},
        {"ended": "false", "metadata": '{"n": 1}', "limit": "500", "cursor": "c"},
    ]
    stub.will(reply({"sessions": [], "cursor": None, "degraded": []}))
    assert "No sessions." in tool("sessions", "list").stdout
    assert dict(stub.seen[-1].query) == {"limit": "50"}


def test_a_fact_is_told_with_all_that_belongs_to_it(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply(FACT, status=201))
    shown = tool(
        "knowledge", "put", "-t", "suppliers", "--key", "acme.price", "--confidence", "0.9", "--source", "e1",
        "--metadata", '{"n": 1}', "1.20 a piece",
    )  # fmt: skip
    assert shown.exit_code == 0 and "[red]1.20[/red] a piece" in shown.stdout and "acme.price" in shown.stdout
    (seen,) = stub.seen
    assert seen.path == "/v1/agents/a/knowledge" and seen.json() == {
        "topic": "suppliers", "content": "1.20 a piece", "key": "acme.price", "confidence": 0.9, "sources": ["e1"],
        "metadata": {"n": 1},
    }  # fmt: skip
    assert tool("knowledge", "put", "-t", "x", "--confidence", "2", "y").exit_code == 2


def test_facts_are_listed_and_searched(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"facts": [FACT], "cursor": None}))
    listed = tool("knowledge", "list", "--key", "acme.price", "--at", "2026-01-12", "-t", "suppliers", "--json")
    assert json.loads(listed.stdout)["id"] == "f1"
    tool("knowledge", "list", "--history", "--min-confidence", "0.5")
    one, other = (dict(seen.query) for seen in stub.seen)
    assert one == {"key": "acme.price", "at": "2026-01-12T00:00:00+00:00", "topic": "suppliers", "limit": "50"}
    assert other == {"history": "true", "min_confidence": "0.5", "limit": "50"}
    hit = FACT | {"score": 0.5, "scores": {"keyword": 0.5}}
    stub.will(reply({"hits": [hit], "not_yet_embedded": 3, "degraded": ["semantic"]}))
    found = tool("knowledge", "search", "price", "-t", "suppliers", "--strategy", "keyword", "-k", "2")
    assert "0.500" in found.stdout and "3 facts" in found.stdout and "semantic" in found.stderr
    assert stub.seen[-1].json() == {
        "query": "price", "k": 2, "strategy": "keyword", "filter": {"topics": ["suppliers"]},
    }  # fmt: skip
    stub.will(reply({"hits": [], "not_yet_embedded": 0, "degraded": []}))
    assert "Nothing of it is known." in tool("knowledge", "search", "price").stdout


def test_a_fact_ends_or_is_erased_and_a_refusal_is_said(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply(FACT | {"believed_until": "2026-01-13T09:00:00Z"}))
    assert "to 2026-01-13 09:00:00Z" in tool("knowledge", "end", "f1").stdout
    stub.will(reply({"erased": 3}))
    assert tool("knowledge", "end", "f1", "--erase").stdout == "3 versions erased.\n"
    assert json.loads(tool("knowledge", "end", "f1", "--erase", "--json").stdout) == {"erased": 3}
    assert [(seen.method, seen.path, seen.query) for seen in stub.seen[:2]] == [
        ("DELETE", "/v1/agents/a/knowledge/f1", ()),
        ("DELETE", "/v1/agents/a/knowledge/f1", (("erase", "true"),)),
    ]
    stub.will(problem("no-longer-believed", 409, detail="Another version is believed.", current="f2"))
    refused = tool("knowledge", "end", "f1")
    assert refused.exit_code == 1 and "Another version is believed." in refused.stderr
