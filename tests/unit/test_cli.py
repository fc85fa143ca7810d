"""The command line tool against a server on loopback: what it sends, what it prints, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import agentmemory.cli
from agentmemory.cli.app import app
from support.stub_sidecar import Reply, StubSidecar, problem, reply, serve_in_thread

RECEIPT = {"position": "3.1-7", "version": "3.1-7", "events": [{"id": "e1"}], "repeated": False}
EVENT = {
    "id": "e1", "position": "3.1-7", "index": 0, "type": "message", "role": "user", "content": "[red]hot[/red]",
    "session": "day-1", "at": "2026-01-12T09:00:00Z",
}  # fmt: skip
LETTER = {
    "id": "d1", "agent": "a", "position": "3.1-7", "index": 0, "reason": "too long", "event": {"content": "x"},
    "dead_at": "2026-01-12T09:00:00Z",
}  # fmt: skip
READY = {
    "lag_seconds": 0.0, "pending": 0, "dead_letters": 0, "unembedded": 0, "unembeddable": 0,
    "persistence": "append-only file", "shards": [{"shard": 0, "open": True}], "degraded": [],
}  # fmt: skip
NOTHING = reply({"events": [], "cursor": None})
Tool = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[StubSidecar]:
    with serve_in_thread() as server:
        yield server


@pytest.fixture
def tool(stub: StubSidecar) -> Tool:
    environment = {"AGENTMEMORY_URL": stub.url, "COLUMNS": "200"}

    def invoke(*arguments: str | Path, **options: Any) -> Result:
        return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments], **options)

    return invoke


def conversation(file: Path, count: int) -> Path:
    lines = (
        {"id": number, "at": "2026-01-12T09:00:00Z", "session": "s", "speaker": "user", "content": f"line {number}"}
        for number in range(1, count + 1)
    )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_a_turn_is_recorded_and_waited_for(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply(RECEIPT, status=201), reply({"reached": True, "until": "durable"}))
    result = tool(
        "turn", "Use the audited figures", "--agent", "a", "--type", "decision", "--session", "day-1",
        "--at", "2026-01-12", "--metadata", '{"task": "q2"}',
        "--merge", '{"source": "audit"}', "--key", "k", "--wait", "durable", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["position"] == "3.1-7"
    turn, barrier = stub.seen
    assert turn.headers["Idempotency-Key"] == "k"
    assert turn.headers["AgentMemory-Client"] == "agentmemory-cli"
    assert turn.json() == {
        "session": "day-1",
        "events": [
            {
                "type": "decision",
                "content": "Use the audited figures",
                "at": "2026-01-12T00:00:00+00:00",
                "metadata": {"task": "q2"},
            }
        ],
        "working_memory": {"merge": {"source": "audit"}},
    }
    assert barrier.json()["positions"] == [{"agent": "a", "position": "3.1-7"}]


def test_recall_shows_hits_as_they_are(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"hits": [EVENT | {"kind": "event", "score": 0.83, "scores": {}}], "degraded": ["redis"]}))
    result = tool("recall", "how hot?", "--agent", "a", "-k", "3", "--type", "message", "--since", "2026-01-12")
    assert result.exit_code == 0, result.stderr
    assert "0.830" in result.stdout
    assert "2026-01-12 09:00:00Z  day-1  message/user  [red]hot[/red]" in result.stdout
    assert "not whole: redis" in result.stderr
    assert stub.seen[0].json() == {
        "query": "how hot?",
        "k": 3,
        "filter": {"types": ["message"], "since": "2026-01-12T00:00:00+00:00"},
    }


def test_hydrate_prints_the_text(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"text": "You were here.", "tokens": 4, "cold_start": "expired", "degraded": []}))
    result = tool("hydrate", "go on", "--agent", "a", "--tokens", "100", "--restore")
    assert (result.exit_code, result.stdout) == (0, "You were here.\n")
    assert "expired" in result.stderr
    assert stub.seen[0].json() == {"query": "go on", "budget": {"tokens": 100}, "restore": True}


def test_a_document_is_printed_whole_or_in_parts(stub: StubSidecar, tool: Tool) -> None:
    whole = reply({"a": [1, {"b": 2}]}, ETag='"3.1-7"')
    part = reply({"version": "3.1-7", "matches": [{"path": "$['a'][1]", "value": {"b": 2}}]})
    stub.will(whole, part, part)
    assert tool("document", "--agent", "a").stdout == '{"a":[1,{"b":2}]}\n'
    path = ("document", "--agent", "a", "--path", "$.a[?@.b]", "--version", "3.1-7")
    assert tool(*path).stdout == "$['a'][1]  {\"b\":2}\n"
    assert json.loads(tool(*path, "--json").stdout)["version"] == "3.1-7"
    assert stub.seen[1].query == (("path", "$.a[?@.b]"), ("version", "3.1-7"))


def test_a_timeline_is_cut_at_its_limit(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"events": [EVENT] * 2, "cursor": "c1"}), reply({"events": [EVENT], "cursor": "c2"}))
    result = tool("timeline", "--agent", "a", "-n", "3", "--order", "desc", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["e1"] * 3
    assert [dict(seen.query) for seen in stub.seen] == [
        {"order": "desc", "limit": "3"},
        {"order": "desc", "limit": "1", "cursor": "c1"},
    ]


def test_several_timelines_name_whose_event_it_is(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply({"events": [EVENT | {"agent": "research-1"}], "cursor": None}))
    shown = tool("timelines", "research-1", "writer-2", "--metadata", '{"task": "q2"}', "-n", "7")
    assert "research-1" in shown.stdout and "[red]hot[/red]" in shown.stdout
    assert stub.seen[0].path == "/v1/events"
    assert set(stub.seen[0].query) >= {
        ("agents", "research-1"), ("agents", "writer-2"), ("metadata", '{"task":"q2"}'), ("limit", "7")
    }  # fmt: skip
    tool("timeline", "--agent", "a", "--metadata", '{"task": "q2"}')
    assert ("metadata", '{"task":"q2"}') in stub.seen[1].query


def test_status_says_when_it_is_not_ready(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply(READY), reply(READY | {"degraded": ["postgres"]}), reply({"position": "3.1-7", "state": "durable"}))
    ready, degraded = tool("status"), tool("status", "--json")
    assert (ready.exit_code, degraded.exit_code) == (0, 1)
    assert "1 of 1" in ready.stdout
    assert json.loads(degraded.stdout)["degraded"] == ["postgres"]
    assert tool("status", "--position", "3.1-7", "--agent", "a").stdout == "durable\n"


def test_dead_letters_are_listed_exported_replayed_and_discarded(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    stub.will(reply({"dead_letters": [LETTER], "cursor": None}))
    assert "too long" in tool("dead-letters", "list").stdout
    file = tmp_path / "letters.jsonl"
    assert tool("dead-letters", "export", file).exit_code == 0
    assert json.loads(file.read_text())["event"] == {"content": "x"}
    again = tool("dead-letters", "export", file)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)
    assert tool("dead-letters", "replay", "a", "d1").exit_code == 0
    assert tool("dead-letters", "discard", "a", "d1", input="n\n").exit_code == 1
    assert tool("dead-letters", "discard", "a", "d1", "--yes").exit_code == 0
    assert [seen.method for seen in stub.seen] == ["GET", "GET", "POST", "DELETE"]


def test_models_are_listed_and_the_vectors_of_a_former_one_removed(stub: StubSidecar, tool: Tool) -> None:
    former = {"id": 1, "name": "old", "dimensions": 8, "complete": False, "total": 9}
    new = {"id": 2, "name": "new", "dimensions": 9, "kept": True, "current": True, "back_filled": 3, "total": 9}
    stub.will(reply({"models": [former, new]}), reply({"models": [former, new]}), reply({"deleted": True}))
    table = tool("models", "list").stdout
    assert "goes by it" in table and "3 of 9" in table
    assert [json.loads(line)["id"] for line in tool("models", "list", "--json").stdout.splitlines()] == [1, 2]
    assert tool("models", "remove", "1", input="n\n").exit_code == 1
    assert tool("models", "remove", "1", "--yes").exit_code == 0
    assert [(seen.method, seen.path) for seen in stub.seen][2:] == [("DELETE", "/v1/embedding-models/1")]


def test_status_tells_of_a_back_fill(stub: StubSidecar, tool: Tool) -> None:
    stub.will(reply(READY | {"embedding_model": "old", "back_fill": {"model": "new", "done": 1500, "total": 2000}}))
    said = tool("status").stdout
    assert "old" in said and "new: 1,500 of 2,000 embedded" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("turn", "--agent", "a"),
        ("turn", "x"),
        ("turn", "x", "--agent", ""),
        ("turn", "x", "--agent", "a", "--merge", "{"),
        ("turn", "x", "--agent", "a", "--merge", "[]"),
        ("turn", "x", "--agent", "a", "--merge", "{}", "--set", "{}"),
        ("turn", "x", "--agent", "a", "--at", "yesterday"),
        ("recall", "x", "--agent", "a", "--url", "nowhere"),
        ("recall", "x", "--agent", "a", "-k", "0"),
        ("status", "--position", "3.1-7"),
        ("import", "/nonexistent", "--agent", "a"),
        ("nothing-like-this",),
    ],
)
def test_wrong_usage_ends_with_two_and_sends_nothing(stub: StubSidecar, tool: Tool, arguments: tuple[str, ...]) -> None:
    result = tool(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert stub.seen == []


def test_a_refusal_is_one_line_and_ends_with_one(stub: StubSidecar, tool: Tool) -> None:
    stub.will(problem("version-conflict", 412, detail="The document is at 3.1-9; read it and decide anew."))
    result = tool("turn", "--agent", "a", "--merge", "{}", "--if-match", "3.1-8")
    assert result.exit_code == 1
    assert result.stderr == "agentmemory: The document is at 3.1-9; read it and decide anew.\n"


def test_no_sidecar_ends_with_three(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmemory.cli.options.PATIENCE", agentmemory.Retries(budget=0.0))
    result = tool("status", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 3
    assert result.stderr == "agentmemory: Nothing listens at http://127.0.0.1:1. Is the sidecar running there?\n"


def test_without_its_extra_the_tool_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agentmemory.cli, "NEEDS", ("rich", "a_module_that_is_not_there"))
    with pytest.raises(SystemExit) as caught:
        agentmemory.cli.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "needs a_module_that_is_not_there: pip install 'agentmemory[cli]'" in error


@pytest.mark.parametrize("command", ["local", "demo"])
def test_without_its_extra_a_local_memory_says_which(tool: Tool, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("agentmemory.cli.local.NEEDS", ("a_module_that_is_not_there",))
    result = tool(command)
    assert result.exit_code == 2
    assert "install a_module_that_is_not_there: pip install 'agentmemory[local]'" in result.stderr


def as_event(line: dict[str, Any]) -> dict[str, Any]:
    metadata = {"import_id": line["id"], "speaker": line["speaker"]}
    return EVENT | {name: line[name] for name in ("at", "session", "content")} | {
        "role": line["speaker"], "metadata": metadata, "position": f"3.1-{line['id']}",
    }  # fmt: skip


def turns_of(stub: StubSidecar) -> list[Any]:
    return [seen for seen in stub.seen if seen.path.endswith("/turns")]


def test_an_import_sends_the_lines_in_order(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    stub.will(reply(READY), NOTHING, reply(RECEIPT, status=201), reply(RECEIPT))
    result = tool("import", conversation(tmp_path / "talk.jsonl", 100), "--agent", "a", "--no-wait", "--json")
    assert result.exit_code == 0, result.stderr
    sent = [event["metadata"]["import_id"] for turn in turns_of(stub) for event in turn.json()["events"]]
    assert sent == list(range(1, 101))
    answer = json.loads(result.stdout)
    assert (answer["lines"], answer["already_there"], answer["dead_letters"]) == (100, 0, None)


@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_line_stops_an_import_before_it_sends(stub: StubSidecar, tool: Tool, tmp_path: Path, skip: bool) -> None:
    file = conversation(tmp_path / "talk.jsonl", 3)
    file.write_text(file.read_text().replace("2026-01-12T09:00:00Z", "soon", 1))
    stub.will(reply(READY), NOTHING, reply(RECEIPT, status=201), reply(READY))
    result = tool("import", file, "--agent", "a", "--no-wait", "--json", *(["--skip-bad"] if skip else []))
    assert "line 1: `at`" in result.stderr
    if skip:
        assert json.loads(result.stdout)["skipped"] == 1
    else:
        assert (result.exit_code, stub.seen) == (1, [])


def test_a_refused_turn_stops_an_import_and_names_its_lines(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    stub.will(reply(READY), NOTHING, problem("too-large", 413, detail="An event is over 1 MiB."))
    result = tool("import", conversation(tmp_path / "talk.jsonl", 2), "--agent", "a")
    assert result.exit_code == 1
    assert "lines up to 2: An event is over 1 MiB." in result.stderr


def test_a_cut_import_goes_on_with_what_memory_does_not_hold(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    file = conversation(tmp_path / "talk.jsonl", 100)
    stub.will(reply(READY), NOTHING, reply(RECEIPT, status=201), problem("too-large", 413))
    cut = tool("import", file, "--agent", "a")
    assert "Cut off after 64 lines. Run it again, and it goes on from there." in cut.stderr
    lost = turns_of(stub)[1]
    stub.seen.clear()

    held = [as_event(json.loads(line)) for line in file.read_text().splitlines()[:64]]
    stub.will(reply(READY), reply({"events": held, "cursor": None}), reply(RECEIPT, status=201), reply(READY))
    result = tool("import", file, "--agent", "a", "--no-wait", "--json")
    assert result.exit_code == 0, result.stderr
    (sent,) = turns_of(stub)
    assert (sent.body, sent.headers["Idempotency-Key"]) == (lost.body, lost.headers["Idempotency-Key"])
    assert json.loads(result.stdout)["already_there"] == 64


def test_a_file_that_has_grown_or_was_mended_doubles_nothing(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    file = conversation(tmp_path / "talk.jsonl", 10)
    held = [as_event(json.loads(line)) for line in file.read_text().splitlines() if json.loads(line)["id"] != 3]
    held[0]["content"] = "line 1, as it was before it was mended"
    conversation(file, 12)
    stub.will(reply(READY), reply({"events": held, "cursor": None}), reply(RECEIPT, status=201), reply(READY))
    result = tool("import", file, "--agent", "a", "--no-wait", "--json")
    assert result.exit_code == 0, result.stderr
    assert [event["metadata"]["import_id"] for event in turns_of(stub)[0].json()["events"]] == [1, 3, 11, 12]


def test_what_memory_holds_is_not_guessed(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    stub.will(reply(READY), reply({"events": [], "cursor": None, "degraded": ["postgres"]}))
    result = tool("import", conversation(tmp_path / "talk.jsonl", 2), "--agent", "a")
    assert result.exit_code == 1
    assert "postgres" in result.stderr
    assert turns_of(stub) == []


def test_without_resume_all_is_sent_and_repeats_are_counted(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    stub.will(reply(READY), reply(RECEIPT, status=201), reply(RECEIPT | {"repeated": True}), reply(READY))
    file = conversation(tmp_path / "talk.jsonl", 100)
    result = tool("import", file, "--agent", "a", "--no-wait", "--no-resume", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(turns_of(stub)) == 2
    assert json.loads(result.stdout)["already_there"] == 36


def test_where_all_is_there_an_import_still_waits(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    file = conversation(tmp_path / "talk.jsonl", 2)
    held = [as_event(json.loads(line)) for line in file.read_text().splitlines()]
    stub.will(reply(READY), reply({"events": held, "cursor": None}), reply({"reached": True}), reply({}), reply(READY))
    result = tool("import", file, "--agent", "a", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["already_there"] == 2
    barriers = [seen.json() for seen in stub.seen if seen.path.endswith("/barrier")]
    assert [barrier["positions"] for barrier in barriers] == [[{"agent": "a", "position": "3.1-2"}]] * 2


def test_an_import_waits_until_all_is_searchable(stub: StubSidecar, tool: Tool, tmp_path: Path) -> None:
    reached: Reply = reply({"reached": True, "until": "durable"})
    stub.will(reply(READY), NOTHING, reply(RECEIPT, status=201), reached, reached, reply(READY))
    result = tool("import", conversation(tmp_path / "talk.jsonl", 2), "--agent", "a")
    assert result.exit_code == 0, result.stderr
    assert [seen.json()["until"] for seen in stub.seen if seen.path.endswith("/barrier")] == ["durable", "searchable"]
    assert 'agentmemory recall "what happened?" --agent a' in result.stdout


def test_facts_stand_among_the_hits_where_they_are_included(stub: StubSidecar, tool: Tool) -> None:
    fact = {
        "kind": "fact", "id": "f1", "topic": "prices", "content": "1.20 a piece", "believed_from": EVENT["at"],
        "score": 0.9, "scores": {},
    }  # fmt: skip
    stub.will(reply({"hits": [fact, EVENT | {"kind": "event", "score": 0.4, "scores": {}}]}))
    found = tool("recall", "price", "-a", "a", "--include", "events", "--include", "knowledge")
    assert stub.seen[-1].json()["include"] == ["events", "knowledge"]
    first, second = found.stdout.splitlines()
    assert "0.900" in first and "prices" in first and "1.20 a piece" in first and "[red]hot[/red]" in second


def test_what_was_set_aside_is_said_and_read_byte_for_byte(stub: StubSidecar, tool: Tool) -> None:
    set_aside = {"id": "d9", "reason": "cut off", "bytes": 3}
    stub.will(
        reply({"cold_start": "unreadable", "quarantined": [set_aside], "text": "T"}), Reply(body=b"\xff\x00\n"),
        reply({"dead_letters": [LETTER | {"kind": "document", "event": "x"}], "cursor": None}),
    )  # fmt: skip
    woken = tool("hydrate", "-a", "a")
    assert "unreadable" in woken.stderr and "dead letter d9: cut off" in woken.stderr
    assert tool("dead-letters", "read", "a", "d9").stdout_bytes == b"\xff\x00\n"
    assert stub.seen[-1].path == "/v1/dead-letters/a/d9/raw"
    assert "document" in tool("dead-letters", "list").stdout


def test_distillations_are_asked_for_listed_and_forgotten(stub: StubSidecar, tool: Tool) -> None:
    one = {"agent": "a", "session": "s/1", "asked_at": EVENT["at"], "attempts": 3, "refused": "no", "given_up": True}
    stub.will(reply(one, status=202), reply({"distillations": [one], "cursor": None}), reply({"deleted": True}))
    assert "in the queue" in tool("sessions", "distill", "-a", "a", "s/1").stdout
    assert stub.seen[-1].path == "/v1/agents/a/sessions/s%2F1/distillation"
    listed = tool("sessions", "distillations", "--given-up").stdout
    assert "s/1" in listed and "yes" in listed and dict(stub.seen[-1].query)["given_up"] == "true"
    assert "out of the queue" in tool("sessions", "forget-distillation", "-a", "a", "s/1").stdout
    assert stub.seen[-1].method == "DELETE"
