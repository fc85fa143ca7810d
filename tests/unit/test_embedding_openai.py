"""The provider OpenAI against a server on loopback: what it asks, and what it makes of every fault."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from agentmemory_engine.embedding import EmbeddingUnavailable, Unembeddable, from_floats
from agentmemory_engine.embedding.openai import MAX_TEXTS, MAX_TOKENS, OpenAIEmbedder, batches
from agentmemory_engine.endpoint import Patience, TimedOut, retry_after
from support.stub_embeddings import Answer, Fault, StubEmbeddings, answering, failing, vector_of

KEY = "sk-a-secret-key"
PRIVATE = "what nobody else is to read"
QUICK = Patience(one=5.0, texts=20.0, query=10.0, first=0.001, longest=0.002, rest=60.0)
PROBE = ["Is anyone there?"]


@pytest.fixture
async def stub() -> AsyncIterator[StubEmbeddings]:
    async with StubEmbeddings().serve() as server:
        yield server


@pytest.fixture
async def embedder(stub: StubEmbeddings) -> AsyncIterator[OpenAIEmbedder]:
    embedder = make(stub)
    yield embedder
    await embedder.close()


def make(stub: StubEmbeddings, patience: Patience = QUICK, *, dimensions: int = 8) -> OpenAIEmbedder:
    return OpenAIEmbedder(
        model="small", dimensions=dimensions, base_url=stub.url + "/", key=lambda: KEY, patience=patience
    )


def expected(*texts: str) -> list[bytes]:
    return [from_floats(vector_of(text, 8)) for text in texts]


async def test_texts_become_vectors_in_their_order(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    await embedder.start()
    assert await embedder.embed(["abba", "zz", "é"]) == expected("abba", "zz", "é")
    assert await embedder.embed_query("abba") == expected("abba")[0]
    assert await embedder.embed([]) == []
    assert stub.seen[0] == {
        "model": "small", "input": ["abba", "zz", "é"], "dimensions": 8, "encoding_format": "base64"
    }  # fmt: skip
    assert stub.keys == [f"Bearer {KEY}"] * 2


async def test_an_endpoint_that_wants_no_key_is_sent_none(stub: StubEmbeddings) -> None:
    embedder = OpenAIEmbedder(model="m", dimensions=8, base_url=stub.url, key=lambda: None)
    await embedder.embed(["a"])
    await embedder.close()
    assert stub.keys == [None]


async def test_a_new_key_is_used_by_the_next_request(stub: StubEmbeddings) -> None:
    keys = iter(["one", "two"])
    embedder = OpenAIEmbedder(model="m", dimensions=8, base_url=stub.url, key=lambda: next(keys))
    await embedder.embed(["a"])
    await embedder.embed(["a"])
    await embedder.close()
    assert stub.keys == ["Bearer one", "Bearer two"]


def test_batches_hold_so_many_texts_and_tokens() -> None:
    assert list(batches([], 3)) == []
    assert list(batches(["a"] * 7, 3)) == [(0, 3), (3, 6), (6, 7)]
    half = "a b " * (MAX_TOKENS // 4)
    assert list(batches([half, half, half, "a" * 9 * MAX_TOKENS, "a"], 3)) == [(0, 2), (2, 3), (3, 4), (4, 5)]


async def test_many_texts_go_in_batches(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    texts = [f"text {'a' * number}" for number in range(2 * MAX_TEXTS + 1)]
    assert await embedder.embed(texts) == expected(*texts)
    assert [len(one) for one in stub.inputs()] == [MAX_TEXTS, MAX_TEXTS, 1]


def only(**wanted: Any) -> Fault:
    """Refuses a request that has a member of these with another value, or one that is None here at all."""

    def refuse(request: Mapping[str, Any]) -> Answer:
        unknown = [name for name, value in wanted.items() if name in request and request[name] != value]
        return web.Response(status=400) if unknown else None

    return refuse


@pytest.mark.parametrize(
    ("knows", "options"),
    [
        ({"encoding_format": None}, {"dimensions": 8}),
        ({"dimensions": None}, {"encoding_format": "base64"}),
        ({"dimensions": None, "encoding_format": None}, {}),
    ],
)
async def test_what_a_server_does_not_know_is_left_out(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, knows: dict[str, Any], options: dict[str, Any]
) -> None:
    stub.always = only(**knows)
    assert await embedder.embed(["a", "b"]) == expected("a", "b")
    before = len(stub.seen)
    assert await embedder.embed(["c"]) == expected("c")
    assert stub.seen[before:] == [{"model": "small", "input": ["c"], **options}]


async def test_a_server_that_is_replaced_by_another_goes_on(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    await embedder.embed(["a"])
    stub.always = only(dimensions=None)
    assert await embedder.embed(["a", "b", "c"]) == expected("a", "b", "c")


async def test_floats_are_taken_where_base64_was_asked_for(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    stub.faults = [answering([{"index": 0, "embedding": vector_of("a", 8)}])]
    assert await embedder.embed(["a"]) == expected("a")


def refusing(*words: str, status: int = 400) -> Fault:
    """Refuses a request with a text that holds one of the words."""

    def refuse(request: Mapping[str, Any]) -> Answer:
        bad = any(word in text for word in words for text in request["input"])
        return web.Response(status=status, body=b'{"error": {"code": "string_above_max_length"}}') if bad else None

    return refuse


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("place", [0, 13, MAX_TEXTS, 2 * MAX_TEXTS - 1])
async def test_a_text_that_is_refused_is_found(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, status: int, place: int
) -> None:
    stub.always = refusing("bad", status=status)
    texts = ["good"] * 2 * MAX_TEXTS
    texts[place] = "bad"
    with pytest.raises(Unembeddable, match=f"status {status}, string_above_max_length") as refused:
        await embedder.embed(texts)
    assert refused.value.index == place
    assert PROBE in stub.inputs()
    with pytest.raises(Unembeddable):
        await embedder.embed_query("bad")


@pytest.mark.parametrize("status", [402, 404])
async def test_a_server_beside_another_that_has_no_model_makes_no_text_unembeddable(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, status: int
) -> None:
    """Behind a load balancer, each request may meet another one."""
    assert await embedder.embed(["a"]) == expected("a")
    turns = count()
    stub.always = lambda request: None if next(turns) % 2 else failing(status)(request)
    with pytest.raises(EmbeddingUnavailable, match="takes one text and refuses another"):
        await embedder.embed(["a"])


async def test_a_refusal_that_is_not_repeated_condemns_no_text(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    assert await embedder.embed(["a"]) == expected("a")
    turns = count()
    stub.always = lambda request: None if next(turns) else failing(400)(request)
    assert await embedder.embed(["a"]) == expected("a")


async def test_a_slow_query_leaves_batches_as_large_as_they_are(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def time_out(*_: object, **__: object) -> None:
        raise TimedOut("late")

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "_ask", time_out)
        for ask in (embedder.embed_query, lambda text: embedder.embed([text])):
            with pytest.raises(EmbeddingUnavailable):
                await ask("a")
    before = len(stub.seen)
    await embedder.embed(["a"] * MAX_TEXTS)
    assert [len(one) for one in stub.inputs()[before:]][-1] == MAX_TEXTS


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_server_that_refuses_everything_makes_no_text_unembeddable(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, status: int
) -> None:
    assert await embedder.embed(["a"]) == expected("a")
    stub.always = failing(status)
    for ask in (embedder.embed(["a", "b"]), embedder.embed_query("a")):
        with pytest.raises(EmbeddingUnavailable, match=f"refuses every text .status {status}, the_code.*check"):
            await ask


async def test_a_batch_that_is_too_large_is_halved_and_stays_so(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    stub.always = lambda request: web.Response(status=413) if len(request["input"]) > 8 else None
    texts = ["a" * number for number in range(1, MAX_TEXTS + 1)]
    assert await embedder.embed(texts) == expected(*texts)
    before = len(stub.seen)
    assert await embedder.embed(texts) == expected(*texts)
    assert [len(one) for one in stub.inputs()[before:]] == [8] * 4


GOOD = [{"index": 0, "embedding": vector_of("a", 8)}, {"index": 1, "embedding": vector_of("b", 8)}]
TROUBLES: dict[str, Fault] = {
    **{f"status {status}": failing(status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)},
    "too few": answering(GOOD[:1]),
    "too many": answering([*GOOD, {"index": 2, "embedding": vector_of("c", 8)}]),
    "one twice": answering([GOOD[0], GOOD[0]]),
    "an index of none": answering([GOOD[0], GOOD[1] | {"index": 2}]),
    "no index": answering([GOOD[0], {"embedding": GOOD[1]["embedding"]}]),
    "too short": answering([GOOD[0], GOOD[1] | {"embedding": [1.0] * 7}]),
    "too long": answering([GOOD[0], GOOD[1] | {"embedding": [1.0] * 9}]),
    "zeros": answering([GOOD[0], GOOD[1] | {"embedding": [0.0] * 8}]),
    "null": answering([GOOD[0], GOOD[1] | {"embedding": [1.0] * 7 + [None]}]),
    "not finite": answering(b'{"data": [{"index": 0, "embedding": [NaN]}]}'),
    "infinite": answering(b'{"data": [{"index": 0, "embedding": [1e400]}]}'),
    "packed not finite": answering([GOOD[0], GOOD[1] | {"embedding": "AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8="}]),
    "packed and cut off": answering([GOOD[0], GOOD[1] | {"embedding": "AADA"}]),
    "no base64": answering([GOOD[0], GOOD[1] | {"embedding": "!!!!"}]),
    "no JSON": answering(b"<html>"),
    "nothing": answering(b""),
    "no data": answering(b"{}"),
    "no UTF-8": answering(b'{"data": "\xff"}'),
    "endless": answering(b" " * 200_000),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_trouble_that_passes_is_got_over(stub: StubEmbeddings, embedder: OpenAIEmbedder, name: str) -> None:
    stub.faults = [TROUBLES[name], TROUBLES[name]]
    assert await embedder.embed(["a", "b"]) == expected("a", "b")
    assert stub.inputs() == [["a", "b"]] * 3


@pytest.mark.parametrize("name", TROUBLES)
async def test_trouble_that_lasts_is_the_providers_fault(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, name: str
) -> None:
    stub.always = TROUBLES[name]
    with pytest.raises(EmbeddingUnavailable, match=r"status \d|the provider's answer is wrong"):
        await embedder.embed(["a", "b"])
    assert len(stub.seen) == QUICK.tries


@pytest.mark.parametrize("status", [429, 503, 401])
async def test_a_provider_that_is_away_is_left_alone_for_a_while(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, status: int
) -> None:
    stub.always = failing(status)
    with pytest.raises(EmbeddingUnavailable, match=f"status {status}"):
        await embedder.embed(["a"])
    before = len(stub.seen)
    with pytest.raises(EmbeddingUnavailable, match="left alone"):
        await embedder.embed(PROBE)
    assert len(stub.seen) == before
    # Somebody waits for a query.
    stub.always = None
    assert await embedder.embed_query("a") == expected("a")[0]


async def test_after_what_a_text_may_have_caused_others_are_embedded(
    stub: StubEmbeddings, embedder: OpenAIEmbedder
) -> None:
    stub.always = refusing("bad", status=500)
    with pytest.raises(EmbeddingUnavailable, match="status 500"):
        await embedder.embed(["bad"])
    assert await embedder.embed(PROBE) == expected(*PROBE)


async def test_retry_after_is_kept_to(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    stub.faults = [failing(429, retry_after_ms="1"), failing(503, Retry_After="0")]
    assert await embedder.embed(["a"]) == expected("a")
    stub.faults = [failing(429, Retry_After="100")]
    with pytest.raises(EmbeddingUnavailable, match="status 429"):
        await embedder.embed(["a"])
    with pytest.raises(EmbeddingUnavailable, match=r"another (100|99|98|9\d) s"):
        await embedder.embed(["a"])


async def test_a_provider_that_says_so_is_not_asked_again(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    stub.always = failing(500, x_should_retry="false")
    with pytest.raises(EmbeddingUnavailable, match="status 500"):
        await embedder.embed(["a"])
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5, 1.5),
        ({"Retry-After": "2.5"}, 2.5, 2.5),
        ({"Retry-After": "-1"}, 0, 0),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}, 3500, 3600),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0, 0),
    ],
)
def test_how_long_to_wait_is_read(headers: dict[str, str], low: float, high: float) -> None:
    seconds = retry_after(headers)
    assert seconds is not None and low <= seconds <= high


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "Thu, 99 Foo"])
def test_how_long_to_wait_may_be_nonsense(text: str) -> None:
    assert retry_after({"Retry-After": text}) is None
    assert retry_after({}) is None


def test_pauses_grow_to_the_longest_and_vary() -> None:
    patience = Patience(first=1.0, longest=5.0)
    for failures, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)):
        found = [patience.pause(failures) for _ in range(50)]
        assert most / 2 <= min(found) < max(found) <= most


async def test_what_takes_too_long_is_given_up_and_asked_in_smaller_batches(stub: StubEmbeddings) -> None:
    embedder = make(stub, Patience(one=0.05, first=0.001))
    stub.faults = [stub.hang]
    with pytest.raises(EmbeddingUnavailable, match=r"does not answer within 0\.05 s"):
        await embedder.embed(["a"] * 10)
    await embedder.close()
    patient = make(stub)
    patient._most = embedder._most
    await patient.embed(["a"] * 10)
    await patient.close()
    assert [len(one) for one in stub.inputs()] == [10, 5, 5]


async def test_nobody_there_is_unavailable() -> None:
    async with StubEmbeddings().serve() as stub:
        embedder = make(stub)
    with pytest.raises(EmbeddingUnavailable, match="cannot be reached"):
        await embedder.embed(["a"])
    with pytest.raises(EmbeddingUnavailable, match="left alone"):
        await embedder.embed(["a"])
    await embedder.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 204])
async def test_a_key_goes_nowhere_else(stub: StubEmbeddings, embedder: OpenAIEmbedder, status: int) -> None:
    stub.faults = [failing(status, Location=f"{stub.url}/embeddings")]
    with pytest.raises(EmbeddingUnavailable, match=rf"status {status}; set embedding\.baseUrl"):
        await embedder.embed(["a"])
    assert len(stub.seen) == 1


@pytest.mark.parametrize("fault", [*TROUBLES.values(), failing(401), failing(403), failing(400), failing(302)])
async def test_neither_key_nor_text_nor_answer_is_told_to_anyone(
    stub: StubEmbeddings, embedder: OpenAIEmbedder, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.always = fault
    with pytest.raises(EmbeddingUnavailable) as error:
        await embedder.embed([PRIVATE, "b"])
    told = "".join(traceback.format_exception(error.value)) + repr(error.value) + repr(vars(error.value)) + caplog.text
    for secret in (KEY, PRIVATE, "secret"):
        assert secret not in told.replace("stub_embeddings", "")


@pytest.mark.parametrize("key", ["", "two\nlines", "sp ace", "ümlaut", "x" * 5000])
async def test_what_is_no_key_is_not_sent(stub: StubEmbeddings, key: str) -> None:
    embedder = OpenAIEmbedder(model="m", dimensions=8, base_url=stub.url, key=lambda: key)
    with pytest.raises(EmbeddingUnavailable, match="not one line of printable ASCII"):
        await embedder.embed(["a"])
    await embedder.close()
    assert stub.seen == []


async def test_a_lone_surrogate_is_no_text(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    with pytest.raises(Unembeddable) as refused:
        await embedder.embed(["a", "\ud800"])
    assert refused.value.index == 1 and stub.seen == []


async def test_closing_ends_what_is_under_way(stub: StubEmbeddings, embedder: OpenAIEmbedder) -> None:
    stub.always = stub.hang
    asked = asyncio.create_task(embedder.embed(["a"]))
    await stub.hanging.wait()
    await embedder.close()
    with pytest.raises(EmbeddingUnavailable):
        await asked
    with pytest.raises(EmbeddingUnavailable, match="closed"):
        await embedder.embed(["a"])
