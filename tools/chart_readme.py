"""Writes helm/agentmemory/README.md from the chart's values: python tools/chart_readme.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "agentmemory"
PAGE = CHART / "README.md"

Schema = dict[str, Any]

HEAD = """# The chart agentmemory

Made by `make docs` from `values.yaml` and `values.schema.json`. It works with Helm 3 and Helm 4, on Kubernetes 1.29 or
newer, in a namespace under the restricted profile of Pod Security.

```sh skip
helm install agentmemory helm/agentmemory --namespace agentmemory-system --create-namespace --wait
```

It installs the custom resource AgentMemory, the operator, the injector that gives pods their sidecar, and the rights
they need: no `*`, and Secrets by name, never listed. With `watchNamespaces`, rights are granted in those namespaces
only, and only pods in them are shown to the injector.

**Upgrade and rollback** change the CRD too. Agents do not notice: their sidecars go on as they are, and pods made
afterwards get the new one. A CRD that was applied by other means before needs `--take-ownership`, and with Helm 4
`--force-conflicts`.

**Certificates** that the operator issues are trusted by way of `caBundle` in the webhook configuration, a field that is
the operator's and that no upgrade touches. To go from `self-managed` to `provided`, Helm 4 needs `--force-conflicts` in
that one upgrade, since the field is yours from then on.

**Uninstall** leaves the CRD, every AgentMemory, its data and its logins; installed again, the operator takes up what is
there. With `crds.keep=false` the CRD goes: delete all AgentMemories first, while there is an operator to let go of
them. What the operator made for itself stays in its namespace, and may be deleted: the Secrets of the injector's
certificate, and a Lease.

**Two installations** in one cluster need releases of different names, `watchNamespaces` that have nothing in common,
and `crds.install=false` in one of them.

## Values
"""


class Value(NamedTuple):
    """One of the chart's values: its name with dots, what it is when nobody sets it, and the comment above it."""

    name: str
    default: Any
    says: str


def values(text: str, schema: Schema) -> Iterator[Value]:
    """All of them, in their order. A section is no value; what is as in a pod is one, whatever is in it."""
    return _values(yaml.compose(text), yaml.safe_load(text), text.splitlines(), schema, "")


def _values(node: yaml.Node | None, default: Any, lines: list[str], schema: Schema, path: str) -> Iterator[Value]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name, inner = f"{path}{key.value}", schema["properties"].get(key.value, {})
        if "properties" in inner:
            yield from _values(value, default[key.value], lines, inner, f"{name}.")
        else:
            yield Value(name, default[key.value], _comment(lines, key.start_mark.line))


def _comment(lines: list[str], line: int) -> str:
    said: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        said.insert(0, lines[line].lstrip()[2:])
    return " ".join(said)


def schema_of(name: str, schema: Schema) -> Schema:
    """What the schema says of a value. Raises KeyError where it says nothing."""
    node = schema
    for part in name.split("."):
        node = node["properties"][part]
    return resolve(node, schema)


def resolve(node: Schema, schema: Schema) -> Schema:
    """A definition, where the node refers to one."""
    found: Schema = schema["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return found


def render(text: str, schema: Schema) -> str:
    """The page, in Markdown."""
    rows = ["| value | type | default | says |\n", "| --- | --- | --- | --- |\n"]
    for name, default, says in values(text, schema):
        given = default if isinstance(default, str) else json.dumps(default)
        shown = f"`{given}`" if given else "empty"
        rows.append(f"| `{name}` | {_type(schema_of(name, schema), schema)} | {shown} | {says} |\n")
    return "\n".join([HEAD, "".join(rows)])


def _type(node: Schema, schema: Schema) -> str:
    if "title" in node:
        return str(node["title"])
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        inner = resolve(node["items"], schema)
        return "list of {name: ...}" if inner["type"] == "object" else f"list of {_type(inner, schema)}s"
    if node["type"] == "object":
        return "map of strings"
    if "minimum" in node:
        return f"{node['type']} from {node['minimum']} to {node['maximum']}"
    return str(node["type"])


def main() -> None:
    PAGE.write_text(render((CHART / "values.yaml").read_text(), json.loads((CHART / "values.schema.json").read_text())))


if __name__ == "__main__":
    main()
