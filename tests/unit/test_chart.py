"""The chart's files against each other, against the CRD, and against what its pods read."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from agentmemory_operator.config import load_config
from agentmemory_operator.injector.config import load_injector_config
from tools.chart_readme import CHART, PAGE, ROOT, Value, render, schema_of, values

CRD = ROOT / "crds" / "agentmemories.agentmemory.io.yaml"
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
METADATA = yaml.safe_load((CHART / "Chart.yaml").read_text())
TEMPLATES = {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}
EVERY = list(values(VALUES, SCHEMA))
OF_HELM = {"global", "enabled"}
"""What a chart that depends on this one may say to Helm."""

Schema = dict[str, Any]


def said(schema: Schema, path: str = "") -> set[str]:
    """The names of the values that a schema knows."""
    found: set[str] = set()
    for name, node in schema["properties"].items():
        found |= said(node, f"{path}{name}.") if "properties" in node else {path + name}
    return found


def closed(node: Any) -> bool:
    """Whether every object with named members refuses others."""
    if isinstance(node, dict):
        loose = isinstance(node.get("properties"), dict) and node.get("additionalProperties") is not False
        return not loose and all(map(closed, node.values()))
    return all(map(closed, node)) if isinstance(node, list) else True


def fits(value: Any, node: Schema) -> bool:
    """Whether a default is one that the schema lets through, as far as its own type goes."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "boolean": bool, "string": str, "integer": int, "number": (int, float), "array": list, "object": dict,
    }  # fmt: skip
    if not isinstance(value, kinds[node["type"]]) or ("enum" in node and value not in node["enum"]):
        return False
    if "pattern" in node and re.search(node["pattern"], str(value)) is None:
        return False
    return "minimum" not in node or node["minimum"] <= value <= node["maximum"]


def test_the_crd_of_the_chart_is_the_crd() -> None:
    assert (CHART / "files" / CRD.name).read_bytes() == CRD.read_bytes(), "make docs copies it"


def test_the_versions_are_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert METADATA["version"] == METADATA["appVersion"] == project["version"]


def test_the_readme_is_made_from_the_values_as_they_are() -> None:
    assert PAGE.read_text() == render(VALUES, SCHEMA), "make docs writes it"


@pytest.mark.parametrize("value", EVERY, ids=lambda value: value.name)
def test_each_value_has_a_comment_and_fits_the_schema(value: Value) -> None:
    assert re.fullmatch(r"\S.*[.]|.*\.\.\.", value.says), "a sentence above it says what it is"
    assert fits(value.default, schema_of(value.name, SCHEMA))


def test_values_and_schema_name_the_same() -> None:
    assert {value.name for value in EVERY} == said(SCHEMA) - OF_HELM


def test_no_unknown_value_passes_the_schema() -> None:
    assert closed(SCHEMA)


def test_each_value_is_used_in_a_template() -> None:
    used = "\n".join(TEMPLATES.values())
    unused = [value.name for value in EVERY if not re.search(rf"[.]{value.name.rpartition('.')[2]}\b", used)]
    assert unused == []


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"NOTES.txt", "_helpers.tpl"}))
def test_each_object_has_the_labels_and_annotations_of_all(name: str) -> None:
    text = TEMPLATES[name]
    kinds = len(re.findall(r"^kind: ", text, re.MULTILINE))
    assert text.count('include "am.metadata"') == kinds, "metadata comes from am.metadata"


def environment(template: str) -> set[str]:
    """The names of the variables that a template sets, those of both processes included."""
    return set(re.findall(r"name: (AGENTMEMORY_\w+)", template + TEMPLATES["_helpers.tpl"]))


class Recorded(dict[str, str]):
    """An environment that tells which of its variables were looked for."""

    def __init__(self, **values: str) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("program", ["operator", "injector"])
def test_the_pods_set_what_the_programs_read_and_no_more(program: str) -> None:
    asked = Recorded(AGENTMEMORY_NAMESPACE="a", AGENTMEMORY_POD="b", AGENTMEMORY_SIDECAR_IMAGE="c")
    (load_config if program == "operator" else load_injector_config)(asked)
    of_both = {"AGENTMEMORY_LOG_FORMAT", "AGENTMEMORY_LOG_LEVEL", "AGENTMEMORY_POD"}
    assert environment(TEMPLATES[f"{program}.yaml"]) == asked.asked | of_both


def test_the_files_that_templates_name_are_there() -> None:
    named = set(re.findall(r'Files\.Get "([^"]+)"', "\n".join(TEMPLATES.values())))
    assert named == {str(path.relative_to(CHART)) for path in (CHART / "files").rglob("*.yaml")}
