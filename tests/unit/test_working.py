"""Changes of the document, apart from any store."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.positions import Entry
from agentmemory_engine.turns import DocumentChange
from agentmemory_engine.working import Stored, apply_change, check_object, format_stored, merge, parse_stored

# The examples of RFC 7396, appendix A.
MERGES = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ('{"a":"foo"}', '{"b":{"c":null}}', '{"a":"foo","b":{}}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


@pytest.mark.parametrize(("document", "patch", "expected"), MERGES)
def test_merge_patch_is_that_of_the_rfc(document: str, patch: str, expected: str) -> None:
    changed = apply_change(document.encode(), DocumentChange(merge=msgspec.Raw(patch.encode())))
    assert changed == expected.encode()


@given(
    st.dictionaries(
        st.text(max_size=3), st.none() | st.integers() | st.dictionaries(st.text(max_size=2), st.integers())
    )
)
def test_merging_leaves_the_document_alone(patch: dict[str, Any]) -> None:
    document = {"a": {"b": 1}, "c": 2}
    before = json.dumps(document)
    merge(document, patch)
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    "number", ["1.10", "1e400", "-0.0", "123456789012345678901234567890", "1E+2", "0.1000000000000000055"]
)
def test_numbers_that_were_not_changed_keep_their_text(number: str) -> None:
    changed = apply_change(f'{{"n":{number}}}'.encode(), DocumentChange(merge=msgspec.Raw(b'{"m":1}')))
    assert changed == f'{{"n":{number},"m":1}}'.encode()


@pytest.mark.parametrize("patch", [b"5", b"[1]", b'"text"', b"null"])
def test_a_merge_that_makes_no_object_is_refused(patch: bytes) -> None:
    with pytest.raises(InvalidInput):
        apply_change(b"{}", DocumentChange(merge=msgspec.Raw(patch)))


@pytest.mark.parametrize(
    "patch",
    [
        b'{"op": "add"}',
        b'[{"op": "remove", "path": "/no"}]',
        b'[{"op": "jump", "path": "/a"}]',
        b"[1]",
        b"null",
        b'[{"op": "test", "path": "/a", "value": 2}]',
        b'[{"op": "add", "path": "a", "value": 2}]',
    ],
)
def test_a_json_patch_that_does_not_apply_is_refused(patch: bytes) -> None:
    with pytest.raises(InvalidInput):
        apply_change(b'{"a":1}', DocumentChange(patch=msgspec.Raw(patch)))


def test_a_json_patch_applies() -> None:
    patch = b'[{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 1.50}]'
    assert apply_change(b'{"a":1}', DocumentChange(patch=msgspec.Raw(patch))) == b'{"a":1.50}'


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"nul", b'{"a":NaN}', b'{"a":1', b"[" * 100_000])
def test_what_is_no_json_object_is_no_document(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        check_object(body)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.binary())
def test_a_stored_document_is_read_back_as_it_was_put_together(writer: bytes, fingerprint: bytes, body: bytes) -> None:
    stored = Stored(Entry(7, 1042), "w", writer, fingerprint, 3, body)
    assert parse_stored(format_stored(stored)) == stored
