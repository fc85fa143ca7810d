"""Writes docs/reference/agentmemory.md from the CRD: python tools/crd_reference.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CRD = ROOT / "crds" / "agentmemories.agentmemory.io.yaml"
PAGE = ROOT / "docs" / "reference" / "agentmemory.md"

AS_IN_A_POD = {"affinity", "imagePullSecrets", "tolerations", "topologySpreadConstraints"}
"""Fields whose members are Kubernetes' own: the page names them and goes no further."""

HEAD = """# The AgentMemory, field by field

Made by `make docs` from `crds/agentmemories.agentmemory.io.yaml`. On a cluster, `kubectl explain agentmemory.spec` says
the same. What has no default may be left out, unless it is marked as required.
"""

Schema = dict[str, Any]


def render(crd: Schema) -> str:
    """The page, in Markdown."""
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    sections = []
    described: list[Schema] = []
    for name in ("spec", "status"):
        for path, node in _objects(name, schema["properties"][name]):
            # What several blocks share is described where it first stands.
            if node not in described:
                described.append(node)
                sections.append(_section(path, node))
    opening = f"\n{_words(schema['description'])}\n{_rules(schema)}"
    return "".join([HEAD, opening, *sections, _columns(version["additionalPrinterColumns"])])


def _objects(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every object with members, before what is in it."""
    yield path, schema
    for name, node in schema["properties"].items():
        inner, suffix = (node["items"], "[]") if node.get("type") == "array" else (node, "")
        if name not in AS_IN_A_POD and "properties" in inner:
            yield from _objects(f"{path}.{name}{suffix}", inner)


def _section(path: str, schema: Schema) -> str:
    said = f"\n{_words(schema['description'])}\n" if "description" in schema else ""
    return f"\n## {path}\n{said}{_table(schema, settable=path.startswith('spec'))}{_rules(schema)}"


def _table(schema: Schema, *, settable: bool) -> str:
    """A row for each member; what is not for people to set has no defaults."""
    head = ["field", "type", *(["default"] if settable else []), "says"]
    rows = [head, ["---"] * len(head)]
    for name, node in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else _default(node)
        said = _words(node.get("description", ""))
        rows.append([f"`{name}`", _type(node), *([default] if settable else []), said])
    return "\n" + "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)


def _default(node: Schema) -> str:
    """That of a leaf: an object's is that of its members."""
    default = node.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _type(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}s"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}s".replace("quantitys", "quantities")
    if node["type"] in ("integer", "number"):
        return f"{node['type']}{_range(node)}"
    return str(node.get("format", node["type"]))


def _range(node: Schema) -> str:
    above = "above" if node.get("exclusiveMinimum") else "from"
    least = f" {above} {node['minimum']}" if "minimum" in node else ""
    most = f" to {node['maximum']}" if "maximum" in node else ""
    return least + most


def _rules(schema: Schema) -> str:
    """What the API server says to what it refuses: of the object itself, then of its members."""
    found = [f"* {_words(rule['message'])}\n" for rule in schema.get("x-kubernetes-validations", [])]
    for name, node in schema["properties"].items():
        if "properties" not in node:
            inner = node.get("additionalProperties", {})
            rules = [*node.get("x-kubernetes-validations", []), *inner.get("x-kubernetes-validations", [])]
            found += [f"* `{name}`: {_words(rule['message'])}\n" for rule in rules]
    return "".join(["\nWhat is refused, in the words of the API server:\n\n", *found]) if found else ""


def _columns(columns: list[Schema]) -> str:
    always = ", ".join(column["name"] for column in columns if not column.get("priority"))
    wide = ", ".join(column["name"] for column in columns if column.get("priority"))
    return f"\n## Columns\n\n`kubectl get agentmemories` shows {always}; with `--output=wide` also {wide}.\n"


def _words(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<name>", "NAME")


def main() -> None:
    PAGE.write_text(render(yaml.safe_load(CRD.read_text())))


if __name__ == "__main__":
    main()
