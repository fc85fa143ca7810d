"""The client against a server on loopback: what it sends, what it makes of answers, and when it tries again."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import agentmemory
from agentmemory import AgentMemory, NewEvent, Position, Receipt, Retries
from support.stub_sidecar import DROP, HANG, PROBLEMS, Reply, StubSidecar, problem, reply

QUICK = Retries(budget=5.0, first=0.001, longest=0.01)
ONCE = Retries(budget=0.0)
RECEIPT = {"position": "3.1-7", "version": "3.1-7", "events": [{"id": "e1"}], "repeated": False}


@pytest.fixture
async def stub() -> AsyncIterator[StubSidecar]:
    async with StubSidecar().serve() as server:
        yield server


@pytest.fixture
async def memory(stub: StubSidecar) -> AsyncIterator[AgentMemory]:
    async with AgentMemory(stub.url, client_name="tests", timeout=5.0, retries=QUICK) as opened:
        yield opened


def event(number: int) -> dict[str, object]:
    return {
        "id": f"e{number}",
        "position": f"3.1-{number}",
        "index": 0,
        "type": "message",
        "at": "2026-01-12T09:00:00Z",
    }


async def test_a_turn_is_sent_whole_and_answers_its_receipt(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply(RECEIPT | {"a_later_member": 1}, status=201))
    at = datetime(2026, 1, 12, 9, tzinfo=UTC)
    receipt = await memory.agent("a:b@c").record(
        [NewEvent(role="user", content="Grüße", at=at), {"type": "tool_call", "payload": {"x": [1.5]}, "at": at}],
        session="day-1",
        merge={"step": 3},
        if_match="3.1-6",
    )
    assert receipt == Receipt(
        position="3.1-7", version="3.1-7", events=[agentmemory.EventId("e1")], repeated=False, agent="a:b@c"
    )
    (seen,) = stub.seen
    assert (seen.method, seen.path) == ("POST", "/v1/agents/a%3Ab%40c/turns")
    assert seen.headers["AgentMemory-Client"] == "tests"
    assert seen.headers["If-Match"] == '"3.1-6"'
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.json() == {
        "session": "day-1",
        "events": [
            {"type": "message", "role": "user", "content": "Grüße", "at": "2026-01-12T09:00:00+00:00"},
            {"type": "tool_call", "payload": {"x": [1.5]}, "at": "2026-01-12T09:00:00+00:00"},
        ],
        "working_memory": {"merge": {"step": 3}},
    }


@pytest.mark.parametrize("failure", [DROP, problem("store-unavailable", 503), Reply(status=503, body=b"busy")])
async def test_a_write_is_repeated_with_its_key_and_its_bytes(
    stub: StubSidecar, memory: AgentMemory, failure: Reply
) -> None:
    stub.will(failure, failure, failure, reply(RECEIPT, status=201))
    await memory.agent("a").say("hello")
    assert len(stub.seen) >= 4
    assert len({seen.headers["Idempotency-Key"] for seen in stub.seen}) == 1
    assert len({seen.body for seen in stub.seen}) == 1


async def test_two_writes_have_two_keys_unless_one_is_given(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply(RECEIPT))
    agent = memory.agent("a")
    await agent.say("hello")
    await agent.put({"a": 1})
    await agent.patch({"a": 1}, idempotency_key="mine")
    await agent.delete()
    keys = [seen.headers["Idempotency-Key"] for seen in stub.seen]
    assert keys[2] == "mine"
    assert len(set(keys)) == 4


async def test_the_time_of_an_event_is_fixed_before_the_first_try(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply(RECEIPT))
    before = datetime.now(UTC)
    await memory.agent("a").record([{"content": "x"}])
    sent = datetime.fromisoformat(stub.seen[0].json()["events"][0]["at"])
    assert before <= sent <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("client-header-missing", 403, agentmemory.ClientHeaderMissing),
        ("foreign-origin", 403, agentmemory.ForeignOrigin),
        ("invalid-request", 422, agentmemory.InvalidRequest),
        ("invalid-agent-id", 422, agentmemory.InvalidRequest),
        ("idempotency-key-reused", 422, agentmemory.KeyReused),
        ("no-working-memory", 404, agentmemory.NoWorkingMemory),
        ("no-snapshot", 404, agentmemory.NoSnapshot),
        ("no-dead-letter", 404, agentmemory.NoDeadLetter),
        ("no-model", 404, agentmemory.NoModel),
        ("model-in-use", 409, agentmemory.ModelInUse),
        ("something-new", 404, agentmemory.NotFound),
        ("version-conflict", 412, agentmemory.VersionConflict),
        ("too-large", 413, agentmemory.TooLarge),
        ("position-lost", 410, agentmemory.PositionLost),
        ("something-newer", 418, agentmemory.ProblemError),
    ],
)
async def test_a_refusal_is_its_own_error_and_never_repeated(
    stub: StubSidecar, memory: AgentMemory, code: str, status: int, kind: type[agentmemory.ProblemError]
) -> None:
    stub.will(problem(code, status, detail="Do this.", current="3.1-9"))
    with pytest.raises(kind) as caught:
        await memory.agent("a").say("hello", idempotency_key="k")
    error = caught.value
    assert type(error) is kind
    assert (str(error), error.type, error.status, error.instance) == ("Do this.", PROBLEMS + code, status, "r1")
    assert error.members == {"current": "3.1-9"}
    assert error.idempotency_key == "k"
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("store-unavailable", agentmemory.StoreUnavailable),
        ("shard-closed", agentmemory.ShardClosed),
        ("journal-full", agentmemory.JournalFull),
        ("recall-unavailable", agentmemory.RecallUnavailable),
        ("wrong-eviction-policy", agentmemory.WrongEvictionPolicy),
        ("foreign-store", agentmemory.ForeignStore),
        ("schema-mismatch", agentmemory.SchemaMismatch),
        ("something-new", agentmemory.Unavailable),
    ],
)
async def test_what_is_unavailable_past_the_budget_is_its_own_error(
    stub: StubSidecar, memory: AgentMemory, code: str, kind: type[agentmemory.Unavailable]
) -> None:
    stub.will(problem(code, 503, headers={"Retry-After": "3600"}, store="redis"))
    with pytest.raises(kind) as caught:
        await memory.agent("a").recall("x")
    assert type(caught.value) is kind
    assert caught.value.retry_after == 3600
    assert len(stub.seen) == 1  # an hour is past the budget: not even a second try


async def test_members_of_a_conflict_and_of_an_expiry_are_read(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(
        problem("version-conflict", 412, current="3.1-9"),
        problem("expired", 404, version="3.1-5", snapshot="/v1/agents/a/working-memory?version=3.1-5"),
    )
    with pytest.raises(agentmemory.VersionConflict) as conflict:
        await memory.agent("a").put({}, if_match="3.1-8")
    with pytest.raises(agentmemory.Expired) as expired:
        await memory.agent("a").working_memory()
    assert conflict.value.current == "3.1-9"
    assert expired.value.version == "3.1-5"
    assert expired.value.snapshot == "/v1/agents/a/working-memory?version=3.1-5"


async def test_no_answer_in_time_is_unreachable_and_names_the_key(stub: StubSidecar) -> None:
    stub.will(HANG)
    async with AgentMemory(stub.url, timeout=0.05, retries=ONCE) as memory:
        with pytest.raises(agentmemory.Unreachable, match=r"did not answer within 0\.05 s") as caught:
            await memory.agent("a").say("hello", idempotency_key="k")
    assert caught.value.idempotency_key == "k"


async def test_a_hanging_try_is_followed_by_another(stub: StubSidecar) -> None:
    stub.will(HANG, reply(RECEIPT, status=201))
    async with AgentMemory(stub.url, timeout=0.1, retries=QUICK) as memory:
        await memory.agent("a").say("hello")
    assert len({seen.headers["Idempotency-Key"] for seen in stub.seen}) == 1
    assert len(stub.seen) == 2


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as closed:  # bound and not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        async with AgentMemory(f"http://127.0.0.1:{closed.getsockname()[1]}", retries=ONCE) as memory:
            with pytest.raises(agentmemory.Unreachable, match=r"Nothing listens at .* Is the sidecar running there"):
                await memory.status()


@pytest.mark.parametrize(
    "answer", [Reply(status=500, body=b"<html>"), Reply(status=302), Reply(status=404, body=b"[]")]
)
async def test_another_server_at_the_address_is_told_apart(
    stub: StubSidecar, memory: AgentMemory, answer: Reply
) -> None:
    stub.will(answer)
    with pytest.raises(agentmemory.UnexpectedAnswer, match="is not AgentMemory"):
        await memory.status()


async def test_an_answer_of_another_shape_is_told_apart(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply({"shards": 3}))
    with pytest.raises(agentmemory.UnexpectedAnswer):
        await memory.status()


async def test_a_number_that_no_float_holds_spoils_nothing(stub: StubSidecar, memory: AgentMemory) -> None:
    page = json.dumps({"events": [event(1) | {"payload": "?"}, event(2)], "cursor": None}).replace(
        '"?"', '{"n": 1e400}'
    )
    stub.will(Reply(body=page.encode()))
    first, second = (await memory.agent("a").timeline_page()).events
    assert first.payload == {"n": Decimal("1e400")}
    assert second.id == "e2"


async def test_the_document_comes_with_its_version(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply({"a": 1}, ETag='"3.1-7"'))
    document, version = await memory.agent("a").working_memory()
    assert (document, version) == ({"a": 1}, "3.1-7")
    snapshot = await memory.agent("a").working_memory(version="3.1-2")
    assert snapshot.version == "3.1-2"
    assert stub.seen[1].query == (("version", "3.1-2"),)


async def test_parts_of_the_document_are_read_by_a_path(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply({"version": "3.1-7", "matches": [{"path": "$['a'][0]", "value": 1}, {"path": "$['b']"}]}))
    found = await memory.agent("a").select("$..*", version="3.1-7")
    assert (found.version, [(match.path, match.value) for match in found.matches]) == (
        "3.1-7",
        [("$['a'][0]", 1), ("$['b']", None)],
    )
    assert stub.seen[0].query == (("path", "$..*"), ("version", "3.1-7"))


async def test_a_patch_says_which_kind_it_is(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply(RECEIPT))
    await memory.agent("a").patch({"a": None})
    await memory.agent("a").patch([{"op": "remove", "path": "/a"}])
    assert [seen.headers["Content-Type"] for seen in stub.seen] == [
        "application/merge-patch+json",
        "application/json-patch+json",
    ]
    assert stub.seen[0].body == b'{"a":null}'


async def test_a_timeline_is_read_across_its_pages(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(
        reply({"events": [event(1), event(2)], "cursor": "c1", "degraded": []}),
        reply({"events": [], "cursor": "c2", "degraded": []}),
        reply({"events": [event(3)], "cursor": None, "degraded": []}),
    )
    found = [
        one.id
        async for one in memory.agent("a").timeline(
            types=["message", "decision"], since=datetime(2026, 1, 1, tzinfo=UTC), page_size=2
        )
    ]
    assert found == ["e1", "e2", "e3"]
    shared = {("type", "message"), ("type", "decision"), ("since", "2026-01-01T00:00:00+00:00"), ("limit", "2")}
    assert [set(seen.query) >= shared for seen in stub.seen] == [True] * 3
    assert [dict(seen.query).get("cursor") for seen in stub.seen] == [None, "c1", "c2"]


async def test_several_timelines_are_read_across_their_pages(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(
        reply({"events": [event(1) | {"agent": "a"}], "cursor": "c1", "degraded": []}),
        reply({"events": [event(2) | {"agent": "b"}], "cursor": None, "degraded": []}),
    )
    found = [(one.agent, one.id) async for one in memory.timeline(["a", "b"], metadata={"t": "é"}, page_size=1)]
    assert found == [("a", "e1"), ("b", "e2")]
    asked = [("metadata", '{"t":"é"}'), ("order", "asc"), ("limit", "1"), ("agents", "a"), ("agents", "b")]
    assert [sorted(seen.query) for seen in stub.seen] == [sorted(asked), sorted([*asked, ("cursor", "c1")])]
    assert {seen.path for seen in stub.seen} == {"/v1/events"}
    stub.will(reply({"events": [], "cursor": None, "degraded": ["unflushed"]}))
    with pytest.raises(agentmemory.DegradedAnswer):
        _ = [one async for one in memory.timeline()]


async def test_a_timeline_that_is_not_whole_is_an_error_unless_wanted(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply({"events": [event(1)], "cursor": None, "degraded": ["postgres"]}))
    with pytest.raises(agentmemory.DegradedAnswer, match="postgres"):
        await anext(memory.agent("a").timeline())
    found = [one.id async for one in memory.agent("a").timeline(allow_degraded=True)]
    assert found == ["e1"]


async def test_recall_sends_only_what_was_asked(stub: StubSidecar, memory: AgentMemory) -> None:
    hit = event(1) | {"kind": "event", "score": 0.8, "scores": {"semantic": 0.8}}
    stub.will(reply({"hits": [hit], "approximate": False, "degraded": []}))
    recalled = await memory.agent("a").recall("where?", k=3, types=["message"], metadata={"task": "q2"})
    assert stub.seen[0].json() == {
        "query": "where?",
        "k": 3,
        "filter": {"types": ["message"], "metadata": {"task": "q2"}},
    }
    assert (recalled.hits[0].id, recalled.hits[0].score) == ("e1", 0.8)


async def test_a_cold_start_is_hydrated(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply({"working_memory": None, "version": None, "cold_start": "new-agent", "text": "", "later": {}}))
    hydration = await memory.agent("a").hydrate("what now?", tokens=500, restore=True)
    assert hydration.cold_start == "new-agent"
    assert stub.seen[0].json() == {"query": "what now?", "budget": {"tokens": 500}, "restore": True}


async def test_a_long_wait_is_split(stub: StubSidecar, memory: AgentMemory) -> None:
    timeout = problem("barrier-timeout", 504)
    stub.will(timeout, timeout, reply({"reached": True, "until": "searchable"}))
    place = Position("a", "3.1-7")
    await memory.wait([place, Receipt(position="3.1-7", agent="a")], until="searchable", within=150)
    bodies = [seen.json() for seen in stub.seen]
    assert bodies[0] == {
        "positions": [{"agent": "a", "position": "3.1-7"}],
        "until": "searchable",
        "timeout_seconds": 60.0,
    }
    assert len(bodies) == 3


async def test_a_wait_ends_with_its_time(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(problem("barrier-timeout", 504))
    with pytest.raises(agentmemory.BarrierTimeout):
        await memory.wait(Position("a", "3.1-7"), within=0)
    assert len(stub.seen) == 1


async def test_a_wait_for_many_places_is_split(stub: StubSidecar, memory: AgentMemory) -> None:
    stub.will(reply({"reached": True, "until": "durable"}))
    await memory.wait([Position("a", f"3.1-{number}") for number in range(2500)])
    sent = [place["position"] for seen in stub.seen for place in seen.json()["positions"]]
    assert sent == [f"3.1-{number}" for number in range(2500)]
    assert [len(seen.json()["positions"]) for seen in stub.seen] == [1000, 1000, 500]


async def test_a_wait_for_nothing_asks_nothing(stub: StubSidecar, memory: AgentMemory) -> None:
    await memory.wait([])
    assert stub.seen == []


async def test_dead_letters_are_listed_replayed_and_discarded(stub: StubSidecar, memory: AgentMemory) -> None:
    letter = {
        "id": "d1",
        "agent": "a",
        "position": "3.1-7",
        "index": 0,
        "event": {"x": 1},
        "dead_at": "2026-01-12T09:00:00Z",
    }
    stub.will(
        reply({"dead_letters": [letter], "cursor": "c"}),
        reply({"dead_letters": [letter | {"id": "d2", "event": "no json"}], "cursor": None}),
        reply({"replayed": True}),
    )
    assert [(found.id, found.event) async for found in memory.dead_letters()] == [("d1", {"x": 1}), ("d2", "no json")]
    await memory.replay("a", "d1")
    await memory.discard("a:b", "d2")
    assert [(seen.method, seen.path) for seen in stub.seen[2:]] == [
        ("POST", "/v1/dead-letters/a/d1/replay"),
        ("DELETE", "/v1/dead-letters/a%3Ab/d2"),
    ]


async def test_models_are_listed_and_removed(stub: StubSidecar, memory: AgentMemory) -> None:
    model = {"id": 1, "name": "m", "dimensions": 8, "current": True, "switched_at": "2026-01-12T09:00:00Z"}
    stub.will(reply({"models": [model]}), problem("model-in-use", 409), problem("no-model", 404))
    (found,) = await memory.embedding_models()
    assert (found.id, found.current, found.kept, found.switched_at is None) == (1, True, False, False)
    with pytest.raises(agentmemory.ModelInUse):
        await memory.remove_embedding_model(1)
    with pytest.raises(agentmemory.NoModel):
        await memory.remove_embedding_model(7)
    assert [seen.path for seen in stub.seen[1:]] == ["/v1/embedding-models/1", "/v1/embedding-models/7"]


async def test_readiness_is_waited_for(stub: StubSidecar, memory: AgentMemory) -> None:
    closed, opened = [{"shards": [{"shard": 0, "open": state}], "degraded": []} for state in (False, True)]
    stub.will(DROP, problem("store-unavailable", 503), reply(closed), reply(opened))
    status = await memory.wait_until_ready()
    assert status.shards[0].open is True


@pytest.mark.parametrize(
    ("status", "why"),
    [({"shards": [{"shard": 4, "open": False}]}, "shards not open: 4"), ({"degraded": ["redis"]}, "redis")],
)
async def test_what_is_not_ready_is_named(
    stub: StubSidecar, memory: AgentMemory, status: dict[str, object], why: str
) -> None:
    stub.will(reply(status))
    with pytest.raises(agentmemory.NotReady, match=why):
        await memory.wait_until_ready(within=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
async def test_what_json_cannot_carry_is_refused_before_it_is_sent(
    stub: StubSidecar, memory: AgentMemory, value: object
) -> None:
    with pytest.raises(ValueError):
        await memory.agent("a").put({"x": value})
    assert stub.seen == []


async def test_a_time_without_its_zone_is_refused(memory: AgentMemory) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await memory.agent("a").say("x", at=datetime(2026, 1, 12))


async def test_a_turn_has_one_change(memory: AgentMemory) -> None:
    with pytest.raises(ValueError, match="set and merge"):
        await memory.agent("a").record(set={}, merge={})


@pytest.mark.parametrize("name", ["", ".", "../x", "{a}"])
def test_what_cannot_name_an_agent_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an agent"):
        AgentMemory("http://127.0.0.1:1").agent(name)


@pytest.mark.parametrize("url", ["localhost:7070", "ftp://x", "http://"])
def test_an_address_is_an_http_address(url: str) -> None:
    with pytest.raises(ValueError, match="no http address"):
        AgentMemory(url)


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTMEMORY_URL", raising=False)
    assert AgentMemory().url == "http://127.0.0.1:7070"
    monkeypatch.setenv("AGENTMEMORY_URL", "http://127.0.0.1:7171")
    assert AgentMemory().url == "http://127.0.0.1:7171"


async def test_unopened_it_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await AgentMemory("http://127.0.0.1:1").status()


async def test_called_again_with_a_key_of_the_callers_own_the_body_is_the_same(stub: StubSidecar) -> None:
    async with AgentMemory(stub.url) as memory:
        for _ in range(2):
            stub.will(reply(RECEIPT, status=201))
            await memory.agent("a").say("hello", idempotency_key="mine")
    first, again = stub.seen
    assert first.body == again.body
