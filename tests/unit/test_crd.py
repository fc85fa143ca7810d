"""The CRD against what reads it: the operator's and the sidecar's types, the examples, the reference page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import inspect

from agentmemory_operator import names
from agentmemory_operator import spec as operator_spec
from agentmemory_operator.resources.postgres import FORBIDDEN
from agentmemory_operator.spec import LOCAL_DIMENSIONS, MAX_DIMENSIONS, RESERVED_PARAMETERS, bytes_of, read, seconds
from agentmemory_sidecar import resource
from agentmemory_sidecar.quantities import Bytes, Seconds, parse_duration, parse_size
from agentmemory_sidecar.resource import parse_resource
from tools.crd_reference import PAGE, render

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "agentmemories.agentmemory.io.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
EXAMPLES = ROOT / "tests" / "cluster" / "crd"
ACCEPTED = [*sorted((EXAMPLES / "accepted").glob("*.yaml")), ROOT / "examples" / "agentmemory.yaml"]

Schema = dict[str, Any]


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema in this one, itself included."""
    yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from walk(node, f"{path}.{name}".lstrip("."))
    for inner, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if inner in schema:
            yield from walk(schema[inner], path + suffix)


def at(path: str) -> Schema:
    node: Schema = SCHEMA
    for name in path.split("."):
        node = node["properties"][name]
    return node


def rules(node: Schema) -> list[Schema]:
    found: list[Schema] = node.get("x-kubernetes-validations", [])
    return found


EVERY = list(walk(SCHEMA))
RULES = {rule["message"]: rule for _, node in EVERY for rule in rules(node)}


def inner(kind: inspect.Type) -> inspect.Type:
    """Without None and without the wrapper of constraints."""
    if isinstance(kind, inspect.UnionType):
        (kind,) = (member for member in kind.types if not isinstance(member, inspect.NoneType))
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def leaves(struct: type, schema: Schema, path: str) -> Iterator[tuple[str, inspect.Field, Schema]]:
    """Pairs what a type and the CRD say of every field that is no struct. Both have the same members."""
    kind = inspect.type_info(struct)
    assert isinstance(kind, inspect.StructType)
    assert {field.encode_name for field in kind.fields} == set(schema["properties"]), path
    for field in kind.fields:
        node, place = schema["properties"][field.encode_name], f"{path}.{field.encode_name}"
        member = inner(field.type)
        if isinstance(member, inspect.StructType):
            yield from leaves(member.cls, node, place)
        else:
            yield place, field, node


def default_of(field: inspect.Field) -> Any:
    """None where nothing, or nothing in it, is the default."""
    factory = field.default_factory
    value = field.default if factory is msgspec.NODEFAULT else factory()
    return None if value is msgspec.NODEFAULT or value in ({}, [], None) else value


OPERATOR = list(leaves(operator_spec.Spec, SCHEMA["properties"]["spec"], "spec"))
SIDECAR = list(leaves(resource.Spec, SCHEMA["properties"]["spec"], "spec"))


@pytest.mark.parametrize(("place", "field", "node"), OPERATOR, ids=[place for place, *_ in OPERATOR])
def test_the_operator_reads_what_the_crd_declares(place: str, field: inspect.Field, node: Schema) -> None:
    # A volume has no size of its own in the type: managed Redis and managed Postgres differ in it.
    if not place.endswith(".storage.size"):
        assert node.get("default") == default_of(field)
    member = inner(field.type)
    if isinstance(member, inspect.LiteralType):
        assert set(node["enum"]) == set(member.values)
    parents = at(place.rpartition(".")[0])
    if place.rpartition(".")[2] in parents.get("required", []):
        assert field.required


def test_the_size_of_a_volume_is_the_same_to_crd_and_operator() -> None:
    volumes = {"redis": operator_spec.ManagedRedis().storage, "postgres": operator_spec.ManagedPostgres().storage}
    for store, volume in volumes.items():
        storage = at(f"spec.{store}.managed.storage")
        assert storage["properties"]["size"]["default"] == volume.size == storage["default"]["size"]


@pytest.mark.parametrize(("place", "field", "node"), SIDECAR, ids=[place for place, *_ in SIDECAR])
def test_the_sidecar_reads_what_the_crd_declares(place: str, field: inspect.Field, node: Schema) -> None:
    member = inner(field.type)
    if isinstance(member, inspect.DictType):
        assert node["type"] == "object"
        return
    default = node.get("default")
    if isinstance(member, inspect.CustomType) and default is not None:
        default = {Seconds: parse_duration, Bytes: parse_size}[member.cls](default)
    assert default == default_of(field)
    if isinstance(member, inspect.LiteralType):
        assert set(node["enum"]) == set(member.values)


@pytest.mark.parametrize(("place", "field", "node"), SIDECAR, ids=[place for place, *_ in SIDECAR])
def test_the_sidecar_takes_every_number_that_the_crd_takes(place: str, field: inspect.Field, node: Schema) -> None:
    member = inner(field.type)
    if isinstance(member, inspect.IntType | inspect.FloatType):
        least = member.ge if member.ge is not None else member.gt
        assert least is not None and node["minimum"] >= least
        assert member.le is None or node.get("maximum", MAX_DIMENSIONS) <= member.le


def test_defaults_of_objects_repeat_those_of_their_members() -> None:
    for path, node in EVERY:
        if isinstance(node.get("default"), dict):
            members = {name: member.get("default") for name, member in node["properties"].items()}
            assert node["default"].items() <= members.items(), path


def test_names_are_those_of_the_operator() -> None:
    assert (CRD["spec"]["group"], VERSION["name"]) == (names.GROUP, names.VERSION)
    assert (CRD["spec"]["names"]["kind"], CRD["spec"]["names"]["plural"]) == (names.KIND, names.PLURAL)
    assert CRD["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"


@pytest.mark.parametrize(("path", "node"), EVERY, ids=[path or "." for path, _ in EVERY])
def test_the_schema_is_complete_and_bounded(path: str, node: Schema) -> None:
    """Bounds keep the cost of rules within what the API server allows; descriptions are for `kubectl explain`."""
    assert "x-kubernetes-preserve-unknown-fields" not in node
    if node.get("x-kubernetes-int-or-string"):
        assert "maxLength" in node
    elif node["type"] == "string" and path not in ("apiVersion", "kind"):
        assert node.keys() & {"maxLength", "enum", "format"}
    elif node["type"] == "array":
        assert "maxItems" in node
    elif node["type"] == "object" and path != "metadata":
        assert "properties" in node or "maxProperties" in node
    if not path.endswith(("[]", "{}")) and path != "metadata":
        assert node["description"]


def test_rules_do_not_use_an_optional_field_without_looking_for_it() -> None:
    """`self.name` of a member without a default, and not required, is an error of the rule instead of its message."""
    for path, node in EVERY:
        sure = set(node.get("required", [])) | {
            name for name, member in node.get("properties", {}).items() if "default" in member
        }
        for rule in rules(node) if "properties" in node and path else []:
            used = set(re.findall(r"\b(?:self|oldSelf)\.([a-zA-Z]+)\b(?!\()", rule["rule"]))
            looked_for = set(re.findall(r"has\(self\.([a-zA-Z]+)\)", rule["rule"]))
            assert used <= sure | looked_for, (path, rule["message"])


def test_columns_show_declared_fields() -> None:
    for column in VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"].partition("[")[0].removeprefix(".")
        if not path.startswith("metadata"):
            assert at(path)


@pytest.mark.parametrize("message", RULES)
def test_every_rule_has_an_example_that_it_refuses(message: str) -> None:
    asked = [
        path.read_text().partition("\n")[0].removeprefix("# message: ")
        for path in (EXAMPLES / "refused").glob("*.yaml")
    ]
    assert any(part in " ".join(message.split()) for part in asked)


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_operator_and_sidecar_read_the_accepted_examples(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        whole = {**document, "metadata": {"namespace": "team", **document["metadata"]}}
        memory = read(with_defaults(whole))
        assert memory.name == document["metadata"]["name"]
        spec = memory.spec
        if spec.recall.index.kind == "Exact":
            assert parse_resource(document, "here").spec.mode == spec.mode


def with_defaults(value: Any, schema: Schema = SCHEMA) -> Any:
    """As the API server completes it."""
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    found = dict(value)
    for name, node in schema["properties"].items():
        if name not in found and "default" in node:
            found[name] = node["default"]
        if name in found:
            found[name] = with_defaults(found[name], node)
    return found


def pattern_in(path: str) -> re.Pattern[str]:
    found = re.search(r"matches\('(.+?)'\)", rules(at(path))[0]["rule"])
    assert found is not None
    return re.compile(found[1].removeprefix("^").removesuffix("$"))


DURATIONS = ("spec.workingMemory.ttl", "spec.consolidation.maxDelay", "spec.retention.events")
LOOSE = st.text("0123456789.mshdw kMGTiK-", max_size=12)


@pytest.mark.parametrize("path", DURATIONS)
@given(text=LOOSE | st.from_regex(r"([0-9]{1,3}(ms|s|m|h|d)){1,3}", fullmatch=True))
@example(text="1h30m")
@example(text="123456789s")
@example(text="1234567890s")
def test_durations_are_written_alike_for_crd_operator_and_sidecar(path: str, text: str) -> None:
    accepted = pattern_in(path).fullmatch(text) is not None
    assert accepted == takes(seconds, text) == takes(parse_duration, text)


@given(text=LOOSE | st.from_regex(r"[0-9]{1,17}(|k|M|G|T|Ki|Mi|Gi|Ti)", fullmatch=True))
@example(text="1Mi")
@example(text="1E")
@example(text="123456789012345k")
@example(text="1234567890123456k")
def test_sizes_are_written_alike_for_crd_and_sidecar(text: str) -> None:
    accepted = pattern_in("spec.workingMemory.maxDocumentSize").fullmatch(text) is not None
    assert accepted == takes(parse_size, text)
    assert not accepted or takes(bytes_of, text)


def test_a_rule_of_range_looks_at_what_the_rule_of_form_lets_through() -> None:
    for path in (*DURATIONS, "spec.workingMemory.maxDocumentSize"):
        form, span = rules(at(path))
        assert span["rule"].startswith(f"!{form['rule']} || ")


def takes(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def test_rules_say_the_numbers_that_the_operator_knows() -> None:
    assert f"self <= {MAX_DIMENSIONS}" in [rule["rule"] for rule in rules(at("spec.embedding.dimensions"))]
    assert rules(at("spec.embedding"))[0]["rule"].endswith(f"self.dimensions == {LOCAL_DIMENSIONS}")


def test_parameters_that_the_operator_keeps_are_the_same_everywhere() -> None:
    (rule,) = (rule for rule in rules(at("spec.postgres.managed.parameters")) if " in [" in rule["rule"])
    assert set(re.findall(r"'(\w+)'", rule["rule"])) == RESERVED_PARAMETERS == FORBIDDEN
    named, _, _ = rule["message"].removeprefix("the operator keeps to itself ").partition(";")
    assert set(re.split(r", | and ", " ".join(named.split()))) == RESERVED_PARAMETERS


def test_the_reference_page_is_the_one_that_the_crd_makes() -> None:
    assert render(CRD) == PAGE.read_text(), "run `make docs`"


def test_the_reference_page_names_every_field() -> None:
    page = PAGE.read_text()
    for path, _ in EVERY:
        if path.startswith(("spec.", "status.")) and not path.endswith(("[]", "{}")):
            assert f"| `{path.rpartition('.')[2]}` |" in page or ".affinity." in path or "[]" in path
