"""The commands on channels against a server on loopback: what they send, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from agentmemory.cli.app import app
from support.stub_sidecar import Reply, StubSidecar, problem, reply, serve_in_thread

MESSAGE = {
    "position": "3.1-7", "from": "a", "at": "2026-01-12T09:00:00Z", "type": "result", "payload": {"n": "[red]1[/red]"},
}  # fmt: skip
Tool = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[StubSidecar]:
    with serve_in_thread() as server:
        yield server


@pytest.fixture
def tool(stub: StubSidecar) -> Tool:
    environment = {"AGENTMEMORY_URL": stub.url, "COLUMNS": "200"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["channel", *arguments])


def page(*messages: object, missed: int = 0, position: str | None = "3.1-7") -> Reply:
    return reply({"messages": messages, "position": position, "trimmed": missed > 0, "missed": missed})


def test_a_message_is_published(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"position": "3.1-7", "repeated": False}, status=201))
    shown = tool("publish", "--agent", "a", "c", '{"n": 1}', "--type", "result", "--metadata", "{}", "--key", "k")
    assert shown.exit_code == 0 and "3.1-7" in shown.stdout
    assert json.loads(tool("publish", "-a", "a", "c", "plain text", "--json").stdout)["position"] == "3.1-7"
    first, second = stub.seen
    assert (first.method, first.path, first.headers["Idempotency-Key"]) == ("POST", "/v1/channels/c/messages", "k")
    assert first.json() == {"from": "a", "payload": {"n": 1}, "type": "result", "metadata": {}}
    assert second.json() == {"from": "a", "payload": "plain text"}


def test_messages_are_read_and_what_was_missed_is_said(stub: StubSidecar, tool: Tool) -> None:
    stub.will(page(MESSAGE, missed=4))
    shown = tool("read", "c", "--after", "3.1-1", "-n", "5")
    assert shown.exit_code == 0 and "[red]1[/red]" in shown.stdout and "4 messages" in shown.stderr
    assert json.loads(tool("read", "c", "--json").stdout)["payload"] == MESSAGE["payload"]
    assert dict(stub.seen[0].query) == {"after": "3.1-1", "limit": "5", "wait": "0.000"}


def test_a_group_reads_and_acknowledges_what_was_shown(stub: StubSidecar, tool: Tool) -> None:
    stub.will(page({**MESSAGE, "deliveries": 2}, position=None), reply({"acknowledged": 1}))
    shown = tool("read", "c", "--group", "g.1", "--consumer", "one", "--ack")
    assert shown.exit_code == 0 and "delivery 2" in shown.stdout
    taken, acknowledged = stub.seen
    assert dict(taken.query)["group"] == "g.1" and dict(taken.query)["consumer"] == "one"
    assert acknowledged.json() == {"positions": ["3.1-7"]}
    assert tool("read", "c", "--ack").exit_code == 2


def test_a_stream_is_followed_until_there_are_enough(stub: StubSidecar, tool: Tool) -> None:
    events = f'retry: 1000\n\n:\n\nevent: trimmed\ndata: {{"missed":3}}\n\nid: 3.1-7\ndata: {json.dumps(MESSAGE)}\n\n'
    stub.will(Reply(body=events.encode(), headers={"Content-Type": "text/event-stream"}))
    shown = tool("follow", "c", "--after", "-", "--count", "1")
    assert shown.exit_code == 0 and "[red]1[/red]" in shown.stdout and "3 messages" in shown.stderr
    assert stub.seen[0].headers["Accept"] == "text/event-stream"


def test_what_ends_a_stream_is_said(stub: StubSidecar, tool: Tool) -> None:
    stub.will(problem("position-lost", 410, detail="read again"))
    shown = tool("follow", "c", "--after", "3.1-7")
    assert shown.exit_code == 1 and "read again" in shown.stderr
    body = json.dumps({"type": "https://agentmemory.io/problems/position-lost", "status": 410, "detail": "gone"})
    stub.will(Reply(body=f"event: problem\ndata: {body}\n\n".encode()))
    shown = tool("follow", "c", "--after", "3.1-7")
    assert shown.exit_code == 1 and "gone" in shown.stderr


def test_channels_are_listed(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"channels": [{"channel": "c", "length": 1200, "position": "3.1-7"}], "cursor": None}))
    assert "1,200" in tool("list").stdout
    assert json.loads(tool("list", "--json").stdout)["channel"] == "c"


def test_no_channel_without_a_name(tool: Tool) -> None:
    assert tool("read", "").exit_code == 2
