"""The page at /docs: the OpenAPI document for a person, whole in itself, without scripts or anything from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

Json = dict[str, Any]


def render(document: Json) -> str:
    """HTML for an OpenAPI document."""
    style = files(__package__).joinpath("page.css").read_text()
    info = document["info"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    body = [
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p>{escape(info['description'])}</p>",
        '<p><a href="/openapi.json">openapi.json</a></p>',
        *(_section(tag["name"], operations) for tag in document["tags"]),
        "<h2>Types</h2>",
        *(_type(name, schema) for name, schema in document["components"]["schemas"].items()),
    ]
    title = escape(info["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head><body><main>{''.join(body)}</main></body></html>"
    )


def _section(tag: str, operations: Iterable[tuple[str, str, Json]]) -> str:
    mine = [_operation(*one) for one in operations if tag in one[2]["tags"]]
    return f"<h2>{escape(tag)}</h2>{''.join(mine)}"


def _operation(path: str, method: str, operation: Json) -> str:
    parameters = [one for one in operation["parameters"] if one["in"] != "path"]
    parts = [
        f'<h3 id="{escape(operation["operationId"])}"><b>{method.upper()}</b> <code>{escape(path)}</code></h3>',
        f"<p>{escape(operation['summary'])}</p>",
    ]
    if parameters:
        rows = [(one["name"], one["in"], one.get("description") or _shape(one["schema"])) for one in parameters]
        parts.append(_table(("parameter", "in", "meaning"), rows))
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        parts.append(_table(("body", "type"), [(media, _shape(one["schema"])) for media, one in content.items()]))
    answers = [
        (status, answer["description"], ", ".join(_shape(one["schema"]) for one in answer.get("content", {}).values()))
        for status, answer in operation["responses"].items()
    ]
    parts.append(_table(("status", "", "type"), answers))
    return "".join(parts)


def _type(name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (field, "required" if field in required else "", _shape(one), one.get("description", ""))
        for field, one in schema.get("properties", {}).items()
    ]
    described = f"<p>{escape(schema.get('description', ''))}</p>"
    return f'<h3 id="{escape(name)}">{escape(name)}</h3>{described}' + _table(("member", "", "type", ""), rows)


def _shape(schema: Json) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_shape(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_shape(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in schema
    ]
    kind = str(schema.get("format") or schema.get("type") or "any JSON")
    return " ".join([kind, *bounds])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{header}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
