"""Partial reads: what a path leads to, the text it stands in, and what a path may cost."""

from __future__ import annotations

import asyncio
import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmemory_engine import lazy
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.selection import Selector, check_path, select
from agentmemory_engine.working import check_object

NUMBERS = ["1.0", "1e400", "12345678901234567890.123", "-0", "1.50"]
VALUES = f' {{"n": [{", ".join(NUMBERS)}], "o": {{"z" :1, "a":{{ }}}}, "f": false, "e": "", "u": null}}\n'.encode()


def found(document: bytes | Any, path: str) -> list[tuple[str, str]]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return [(match.path, bytes(match.value).decode()) for match in select(body, path)]


def paths(document: bytes | Any, path: str) -> list[str]:
    return [place for place, _ in found(document, path)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", [("$", VALUES.decode())]),
        ("$.n[*]", [(f"$['n'][{at}]", text) for at, text in enumerate(NUMBERS)]),
        ("$.o", [("$['o']", '{"z" :1, "a":{ }}')]),
        ("$.o.*", [("$['o']['z']", "1"), ("$['o']['a']", "{ }")]),
        ("$['f','u']", [("$['f']", "false"), ("$['u']", "null")]),
        ("$.n[-1]", [("$['n'][4]", "1.50")]),
        ("$.n[::-2]", [("$['n'][4]", "1.50"), ("$['n'][2]", "12345678901234567890.123"), ("$['n'][0]", "1.0")]),
        ("$..a", [("$['o']['a']", "{ }")]),
        ("$.nothing[0]", []),
        ("$.n[9]", []),
        ("$.n[-9]", []),
        ("$.e[0:1]", []),
    ],
)  # fmt: skip
def test_a_value_comes_as_it_was_sent(path: str, expected: list[tuple[str, str]]) -> None:
    assert found(VALUES, path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$[?@]", ["n", "o", "f", "e", "u"]),  # what exists, whatever it is
        ("$[?!@.z]", ["n", "f", "e", "u"]),
        ("$[?@ == false]", ["f"]),
        ("$[?@ != false]", ["n", "o", "e", "u"]),
        ("$[?@ == null]", ["u"]),
        ("$[?@ == '']", ["e"]),
        ("$[?length(@) == 2]", ["o"]),
        ("$[?count(@.*) == 5]", ["n"]),
        ("$[?value(@.z) == 1]", ["o"]),
        ("$[?@.z == $.n[0]]", ["o"]),
        ("$[?@[?$.f == false]]", ["n", "o"]),  # `$` is the document in an inner filter too
        ("$[?@.a == $.o.a && @.z < 2]", ["o"]),
        ("$[?@.missing == @.other]", ["n", "o", "f", "e", "u"]),  # nothing equals nothing
        ("$[?@ <= '']", ["e"]),
        ("$[?match(@, '.*') || @.z >= 1]", ["o", "e"]),
    ],
)
def test_filters_are_those_of_the_standard(path: str, expected: list[str]) -> None:
    assert paths(VALUES, path) == [f"$['{name}']" for name in expected]


@pytest.mark.parametrize(
    ("value", "literal", "expected"),
    [
        ("1", "1.0", True),
        ("1e2", "100", True),
        ("-0", "0", True),
        ("9007199254740993", "9007199254740993", True),
        ("9007199254740992", "9007199254740993", False),
        ("1e400", "1e400", True),
        ("1e400", "1e399", False),
        ("0.1", "0.1", True),
        ("1e99999999999", "1", False),
        ("true", "1", False),
        ("0", "false", False),
        ('"1"', "1", False),
        ("[1]", "1", False),
    ],
)
def test_numbers_are_compared_as_numbers(value: str, literal: str, expected: bool) -> None:
    assert paths(f'{{"a": {value}}}'.encode(), f"$[?@ == {literal}]") == ["$['a']"] * expected


def test_values_are_equal_as_json_values() -> None:
    document = {"a": [[1], {"x": 0}], "b": [[True], {"x": False}], "c": [[1.0], {"x": 0}], "d": [[1]]}
    assert paths(document, "$[?@ == $.a]") == ["$['a']", "$['c']"]


@pytest.mark.parametrize(
    ("pattern", "text", "whole", "part"),
    [
        ("a.c", "abc", True, True),
        ("a.c", "xabcx", False, True),
        ("a.c", "a\rc", False, False),
        ("a[.]c", "abc", False, False),
        ("a\\\\.c", "a.c", True, True),
        ("(", "(", False, False),
        ("1", 1, False, False),
    ],
)
def test_patterns(pattern: str, text: Any, whole: bool, part: bool) -> None:
    assert paths({"a": text}, f"$[?match(@, '{pattern}')]") == ["$['a']"] * whole
    assert paths({"a": text}, f"$[?search(@, '{pattern}')]") == ["$['a']"] * part


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("it's", "it\\'s"),
        ('a"b', 'a"b'),
        ("\\", "\\\\"),
        ('\\"', '\\\\"'),
        ("\n", "\\n"),
        ("\x1f", "\\u001f"),
        ("é", "é"),
    ],
)
def test_a_normalized_path_leads_back(name: str, quoted: str) -> None:
    ((place, _),) = found({"o": {name: 1}}, "$.o.*")
    assert place == f"$['o']['{quoted}']"
    assert paths({"o": {name: 1}}, place) == [place]


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "$.", "$[", " $", "$ ", "$.a | $.b", "$~", "$[?@ in [1]]", "$[?@ =~ /a/]", "$[?#]", "$[?@ <> 1]",
        "$[?@ and @]", "$[?@ == 01]", "$[?@ == -01.5]", "$[?nope(@)]", "$[?@.* == 1]", "$[?length(@)]", "$[$.a]",
        "$.a[01]", "^", "$[9007199254740992]", "$['\\ud800']", "$['\\\"']", '$["\\\'"]', "$['\n']", "$.a" * 400,
        "$[?" + "(" * 33 + "@" + ")" * 33 + "]", "$[?" + "!" * 900 + "@]",
    ],
)  # fmt: skip
def test_what_is_no_path_is_refused(path: str) -> None:
    for refuse in (check_path, lambda wrong: select(b"{}", wrong)):
        with pytest.raises(InvalidInput, match=r"JSONPath|characters|deep"):
            refuse(path)


DEEP = b'{"a":' * 199 + b"{}" + b"}" * 199
ALIKE = json.dumps({"x": [[0] * 50] * 9_000}).encode()
WIDE = json.dumps({"x": [{"id": number, "t": "a" * 40} for number in range(9_000)]}).encode()


@pytest.mark.parametrize(
    ("document", "path", "reason"),
    [
        (DEEP, "$..*..*..*..*", "much larger than the document|looks at more"),
        (DEEP, "$..a..a..a..a..a..a..a..a.zz", "descends too often|looks at more|takes longer"),
        (WIDE, "$..*..*..*..*..*..*", "looks at more|takes longer"),
        (DEEP, "$..[?@..[?@..[?@..zz]]]", "looks at more|takes longer"),
        (WIDE, "$.x[*]['id','t']", "more than 10,000 values"),
        (WIDE, "$['x','x','x','x','x','x','x','x']", "much larger than the document"),
        (ALIKE, "$.x[?@ == $.x[0]]", "looks at more|takes longer"),
        (b'{"a": "' + b"a" * 90 + b'"}', "$[?search(@, '(a|aa)+b')]", "simpler"),
        (b'{"a": "a"}', "$[?search(@, '" + "a" * 257 + "')]", "pattern"),
        (b'{"a": "a", "p": "' + b"(" * 90_000 + b'"}', "$[?match(@, $.p)]", "pattern"),
    ],
)  # fmt: skip
def test_a_path_that_costs_too_much_is_refused_and_says_why(
    document: bytes, path: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "MAX_SECONDS", 0.2 if "takes longer" in reason or reason == "simpler" else 60.0)
    check_object(document)
    with pytest.raises(InvalidInput, match=reason):
        select(document, path)


def test_a_document_of_the_greatest_depth_is_descended() -> None:
    assert len(found(DEEP, "$..a")) == 199
    assert paths(DEEP, "$..a")[-1] == "$" + "['a']" * 199


async def test_the_loop_turns_while_a_path_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "MAX_SECONDS", 0.3)
    selector = Selector()
    asked = asyncio.ensure_future(selector.select(WIDE, "$..*..*..*..*..*..*"))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0)
        turns += 1
    selector.close()
    assert isinstance(asked.exception(), InvalidInput)
    assert turns > 10


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
    alphabet=st.characters(exclude_categories=["Cs"]), max_size=5
)  # fmt: skip
NAMES = st.text("ab'", max_size=2)
DOCUMENTS = st.dictionaries(
    st.text(alphabet=string.printable + "é'\"\\", max_size=4),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)),
    max_size=4,
)  # fmt: skip


def every_place(value: Any) -> list[Any]:
    """The value and all inside it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] + [place for one in inner for place in every_place(one)]


@settings(deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 2]))
def test_every_value_of_any_document_is_found_and_found_again(document: dict[str, Any], indent: int | None) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    matches = select(body, "$..*")
    assert len(matches) == len(every_place(document)) - 1
    for match in matches:
        (again,) = select(body, match.path)
        assert (again.path, bytes(again.value)) == (match.path, bytes(match.value))
        assert bytes(match.value) in body
        assert msgspec.json.decode(match.value) in every_place(document)


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e99999999999999999999", "1e-99999999999999999999"])
def test_an_exponent_that_no_decimal_has_is_compared_all_the_same(number: str) -> None:
    body = b'[{"a": ' + number.encode() + b"}]"
    assert [bytes(match.value) for match in select(body, "$[*].a")] == [number.encode()]
    assert len(select(body, f"$[?@.a == {number}]")) == 1
