"""What schemathesis has to know of this API beyond its description, and what is checked of every answer.

It loads this module by its name. AGENTMEMORY_LEDGER is the file to which it writes what was acknowledged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen
from zlib import crc32

import schemathesis
from jsonschema_rs import Draft202012Validator
from schemathesis import Case, CheckContext, HookContext, Response, SerializationContext

NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"
DIMENSIONS = 26
LONGEST_WAIT = 0.05
WAITS = ("wait", "timeout_seconds")
EXPLAINED = {
    501: {"not-in-this-mode"},
    503: {"store-unavailable", "shard-closed", "journal-full", "recall-unavailable", "too-many-followers"},
    504: {"barrier-timeout"},
}
LAST: dict[str, Any] = {}
"""The last position in a channel, and of a turn."""
_OF_THIS_RUN = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]{8,15}Z|\b\d{1,5}\.\d{1,10}-\d{1,16}|0x[0-9a-f]{1,16}"
)
"""Ids, times and positions that a sidecar gave, and addresses in memory."""
FACTS: list[dict[str, Any]] = []
NEEDS_MORE = {
    "GET /v1/dead-letters/{agent}/{id}/raw",
    "POST /v1/dead-letters/{agent}/{id}/replay",
    "DELETE /v1/dead-letters/{agent}/{id}",
    "DELETE /v1/embedding-models/{id}",
    "POST /v1/agents/{agent}/sessions/{session}/distillation",
    "DELETE /v1/agents/{agent}/sessions/{session}/distillation",
}
"""Operations that need an event that Postgres refuses, or a model, neither of which a request can bring about."""


@schemathesis.serializer(NDJSON)
def write_lines(_: SerializationContext, value: Any) -> bytes:
    """A body of several lines from a list, else of one."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in (value if isinstance(value, list) else [value]))


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Nobody waits for long; and most of what the schema allows keeps to the rules as well that no schema says."""
    for part in ("query", "body"):
        if isinstance(values := getattr(case, part), dict) and (hurried := _hurried(values)) != values:
            setattr(case, part, hurried)
    if case.meta is None or not case.meta.generation.mode.is_positive or _is_left_alone(case):
        return
    for name in [name for name in case.headers or {} if name.lower() in ("if-match", "if-none-match")]:
        del case.headers[name]
    if case.operation.path.endswith("/knowledge/{id}"):
        case.path_parameters = _told()
    if isinstance(case.body, dict) and (mended := _mended(case.body)) != case.body:
        case.body = mended


def _is_left_alone(case: Case[Any]) -> bool:
    """Whether a case is left as it is; in every run the same, so what this run's sidecar gave does not count."""
    shown = f"{case.operation.label} {case.query!r} {case.body!r}"
    return crc32(_OF_THIS_RUN.sub("", shown).encode(errors="replace")) % 4 == 0


def _told() -> dict[str, Any]:
    """Where a fact is believed."""
    if not FACTS:
        body = json.dumps({"topic": "t", "content": "told to be changed"}).encode()
        headers = {"AgentMemory-Client": "fuzz", "Content-Type": "application/json"}
        request = Request(f"{os.environ['AGENTMEMORY_URL']}/v1/agents/told/knowledge", body, headers)
        with urlopen(request) as answer:
            FACTS.append({"agent": "told", "id": json.load(answer)["id"]})
    return FACTS[-1]


def _hurried(values: dict[str, Any]) -> dict[str, Any]:
    long = {name for name in WAITS if isinstance(values.get(name), int | float) and values[name] > LONGEST_WAIT}
    return values | {name: LONGEST_WAIT for name in long if values[name] <= 60}


def _mended(body: dict[str, Any]) -> dict[str, Any]:
    return _with_content(_with_one_change(_with_vector(_with_positions(body))))


def _with_content(body: dict[str, Any]) -> dict[str, Any]:
    events = body.get("events")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        return body
    told = [event if "payload" in event else {"content": "?"} | event for event in events or [{}]]
    return body | {"events": [event | {"content": event.get("content") or ""} for event in told]}


def _with_one_change(body: dict[str, Any]) -> dict[str, Any]:
    change = body.get("working_memory")
    if not isinstance(change, dict) or len(change) < 2:
        return body
    name, value = next(iter(change.items()))
    return body | {"working_memory": {name: True if name == "delete" else value}}


def _with_vector(body: dict[str, Any]) -> dict[str, Any]:
    vector = body.get("vector")
    if not isinstance(vector, list) or not vector:
        return body
    return {name: value for name, value in body.items() if name != "query"} | {
        "vector": (vector * DIMENSIONS)[:DIMENSIONS]
    }


def _with_positions(body: dict[str, Any]) -> dict[str, Any]:
    """The last ones that were answered in place of those that nobody ever got."""
    positions = body.get("positions")
    if not isinstance(positions, list) or not positions:
        return body
    last = LAST.get("turn" if isinstance(positions[0], dict) else "channel")
    return body if last is None else body | {"positions": [last]}


@schemathesis.check
def refusals_are_problems(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Whatever is refused is explained, and no server error is unexplained."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == [PROBLEM], response.headers
    problem = response.json()
    assert problem["status"] == response.status_code and problem["detail"] and problem["instance"]
    code = problem["type"].removeprefix("https://agentmemory.io/problems/")
    if response.status_code >= 500:
        assert code in EXPLAINED.get(response.status_code, set()), problem
    assert ("retry-after" in response.headers) == (response.status_code == 503), problem


@schemathesis.check
def lines_conform(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Each line of an export is one of those that are described, and the last says that it is whole."""
    if response.headers.get("content-type") != [NDJSON]:
        return
    document: Any = case.operation.schema.raw_schema
    described = document["paths"][case.operation.path][case.method.lower()]["responses"]["200"]["content"][NDJSON]
    validator = Draft202012Validator(described["schema"] | {"components": document["components"]})
    lines = [json.loads(line) for line in response.content.splitlines()]
    for line in lines:
        validator.validate(line)
    assert lines[0]["kind"] == "export" and lines[-1]["kind"] == "end"


@schemathesis.check
class EveryOperationSucceeds:
    """Requests that are only refused would test little."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.answered: set[str] = set()

    def after_response(self, _: CheckContext, response: Response, case: Case[Any]) -> None:
        self.asked.add(case.operation.label)
        if 200 <= response.status_code < 300 or response.status_code == 501:
            self.answered.add(case.operation.label)

    def after_run(self, _: CheckContext) -> None:
        never = self.asked - self.answered - NEEDS_MORE
        assert not never, f"never answered with success: {sorted(never)}"


@schemathesis.hook
def after_call(_: HookContext, case: Case[Any], response: Response) -> None:
    """Write down what was acknowledged, in the order in which it was; forget facts that have ended, or are gone."""
    if case.method == "DELETE" and case.path_parameters in FACTS and response.status_code in (200, 404, 409):
        FACTS.remove(case.path_parameters)
    if 200 <= response.status_code < 300 and (path := os.environ.get("AGENTMEMORY_LEDGER")):
        with open(path, "a", encoding="utf-8") as ledger:
            ledger.writelines(json.dumps(entry) + "\n" for entry in _acknowledged(case, response))


def _acknowledged(case: Case[Any], response: Response) -> Iterator[dict[str, Any]]:
    place = case.operation.path
    agent = unquote(urlsplit(response.request.url or "").path).split("/")[3:4]
    if (case.method, place) == ("DELETE", "/v1/agents/{agent}"):
        FACTS[:] = [fact for fact in FACTS if fact["agent"] != agent[0]]
        yield {"agent": agent[0], "erased": True}
    elif case.operation.label == "POST /v1/agents/{agent}/knowledge":
        FACTS.append({"agent": agent[0], "id": response.json()["id"]})
    elif case.operation.label == "POST /v1/channels/{channel}/messages":
        LAST["channel"] = response.json()["position"]
    elif place.endswith(("/turns", "/working-memory")) and case.method != "GET":
        receipt = response.json()
        LAST["turn"] = {"agent": agent[0], "position": receipt["position"]}
        written = {} if receipt["repeated"] else _written(case, response, receipt["version"])
        yield {"agent": agent[0], "events": [event["id"] for event in receipt.get("events", [])], **written}


def _written(case: Case[Any], response: Response, version: str) -> dict[str, Any]:
    """The version of the document that there is now, None after a deletion; nothing where it was not changed."""
    if case.method != "POST":
        return {"version": None if case.method == "DELETE" else version}
    change = json.loads(str(response.request.body, "utf-8") if isinstance(response.request.body, bytes) else "{}").get(
        "working_memory"
    )
    return {} if change is None else {"version": None if change.get("delete") else version}
