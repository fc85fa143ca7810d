"""The chart agrees with the project, and with itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentmemory_operator.__main__ import _EPILOG as OPERATOR_HELP
from tools.chart_readme import CHART, PAGE, described, render

ROOT = Path(__file__).parents[2]
VALUES = (CHART / "values.yaml").read_text()


def test_the_crd_is_that_of_the_project() -> None:
    name = "agentmemories.agentmemory.io.yaml"
    assert (CHART / "files" / name).read_text() == (ROOT / "crds" / name).read_text(), "run `make docs`"


def test_the_versions_are_those_of_the_project() -> None:
    project = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version ="))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == json.loads(project.partition("=")[2])


def test_the_readme_is_made_from_the_values() -> None:
    assert PAGE.read_text() == render(VALUES), "run `make docs`"


def test_a_value_without_a_comment_is_not_let_in() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        list(described("# Head\n\na:\n  b: 1\n"))


def test_every_value_stands_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]
    assert sorted(_paths(yaml.safe_load(VALUES), schema)) == sorted(_schema_paths(schema))


def _paths(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in values.items():
        inner = schema.get("properties", {}).get(name, {})
        if isinstance(value, dict) and "properties" in inner:
            found += _paths(value, inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def _schema_paths(schema: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, inner in schema["properties"].items():
        found += _schema_paths(inner, f"{prefix}{name}.") if "properties" in inner else [prefix + name]
    return found


def test_every_variable_that_the_chart_sets_is_one_that_the_program_knows() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").glob("*"))
    named = {word.strip(",") for word in templates.split() if word.startswith("AGENTMEMORY_")}
    assert len(named) > 10
    assert {name for name in named if name not in OPERATOR_HELP} == set()
