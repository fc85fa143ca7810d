"""What of an event is embedded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.embedding.text import searchable_text


def test_content_goes_before_the_payload() -> None:
    assert searchable_text("said", b'{"tool": "search"}') == "said"


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_without_content_the_texts_of_the_payload_count_in_their_order(content: str | None) -> None:
    payload = {
        "tool": "search",
        "args": {"q": "revenue", "n": 5, "deep": [["one", None], "two"]},
        "ok": True,
        "last": "z",
    }
    assert searchable_text(content, json.dumps(payload).encode()) == "search\nrevenue\none\ntwo\nz"


@pytest.mark.parametrize("payload", [None, b"{}", b"5", b"null", b'["", " "]', b'{"only": {"keys": 1}}'])
def test_nothing_to_search_is_empty(payload: bytes | None) -> None:
    assert searchable_text(None, payload) == ""


def test_a_payload_that_is_a_text_is_that_text() -> None:
    assert searchable_text(None, b'"as it is"') == "as it is"


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_is_taken(payload: object) -> None:
    assert isinstance(searchable_text(None, json.dumps(payload, ensure_ascii=False).encode()), str)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        searchable_text(None, b'{"cut off": ')
