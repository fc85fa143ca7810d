"""The description: every route is in it, every reference leads somewhere, and a person can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, cast

import pytest
from aiohttp import web

from agentmemory_engine.memory import Memory
from agentmemory_sidecar.app import make_app
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.openapi import describe
from agentmemory_sidecar.page import render
from agentmemory_sidecar.routes import OPERATIONS

Json = dict[str, Any]
NOT_DESCRIBED = {("GET", "/openapi.json"), ("GET", "/docs")}


@pytest.fixture(scope="module")
def document() -> Json:
    return cast(Json, json.loads(json.dumps(describe(OPERATIONS))))


def described(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def test_every_route_is_described_and_nothing_else(document: Json) -> None:
    app = make_app(object.__new__(Memory), Metrics(), max_body=1)
    served = {
        (route.method, cast(web.Resource, route.resource).canonical)
        for route in app.router.routes()
        if route.method != "HEAD"
    }
    assert served - NOT_DESCRIBED == {(method, path) for path, method, _ in described(document)}


def test_every_operation_is_whole(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in described(document)]
    assert len(names) == len(set(names))
    for path, method, operation in described(document):
        parameters = [(one["in"], one["name"]) for one in operation["parameters"]]
        assert len(parameters) == len(set(parameters))
        assert {name for place, name in parameters if place == "path"} == set(re.findall(r"{(\w+)}", path))
        assert operation["summary"] and operation["tags"][0] in {tag["name"] for tag in document["tags"]}
        assert {"403", "500"} <= set(operation["responses"])
        assert any(status.startswith("2") for status in operation["responses"])
        assert all(answer["description"] for answer in operation["responses"].values())
        last = path.rpartition("/")[2]
        assert ("requestBody" in operation) == (method in ("PUT", "PATCH") or (method == "POST" and last in BODIES))
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert set(answer["content"]) == {"application/problem+json"}


BODIES = {
    "turns", "recall", "hydrate", "barrier", "import", "sessions", "knowledge", "search", "messages", "ack",
}  # fmt: skip


def test_every_reference_leads_to_a_schema(document: Json) -> None:
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references
    for reference in references:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in schemas


def test_a_query_parameter_is_never_null(document: Json) -> None:
    for _, _, operation in described(document):
        for parameter in operation["parameters"]:
            assert "null" not in json.dumps(parameter["schema"])


class Links(HTMLParser):
    """Collects what a page would fetch, and checks that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action")]
        if tag in ("script", "link", "iframe", "img"):
            self.fetched.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_everything_and_fetches_nothing(document: Json) -> None:
    page = render(document)
    links = Links()
    links.feed(page)
    assert links.fetched == [] and links.open == []
    assert "url(" not in page and "@import" not in page
    for path, _, operation in described(document):
        assert path in page and operation["operationId"] in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page


def test_what_the_document_says_is_escaped_on_the_page(document: Json) -> None:
    hostile = document | {"info": {"title": "<script>", "version": "1", "description": "<img src=x>"}}
    assert "<script>" not in render(hostile) and "<img" not in render(hostile)
