"""The provider `OpenAI`: any server with the API of OpenAI's embeddings (`POST {baseUrl}/embeddings`)."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from agentmemory_engine.embedding.chunks import estimate_tokens
from agentmemory_engine.embedding.errors import EmbeddingMisconfigured, EmbeddingUnavailable, Unembeddable
from agentmemory_engine.embedding.text import check_characters
from agentmemory_engine.embedding.vector import Vector, from_floats
from agentmemory_engine.endpoint import OFFICIAL, ApiKey, Endpoint, Patience, Refused, TimedOut, address
from agentmemory_engine.errors import ProviderUnavailable

MAX_TEXTS = 32
"""Texts of one request: the default limit of servers that run a model themselves."""
MAX_TOKENS = 16_000
"""Tokens of one request, by an estimate; one text alone may have more."""

_SETTING = "embedding.baseUrl"
_PROBE = "Is anyone there?"
_LARGEST_NUMBER = 40
_TOO_LARGE = 413
_OF_THE_TEXT = (400, _TOO_LARGE, 422)
"""Statuses that may be about what was sent; any other is about the server, or the way to it."""
_WIDTH = 4
"""Bytes of a float in base64."""


class _Request(Struct, omit_defaults=True):
    model: str
    input: Sequence[str]
    dimensions: int | UnsetType = UNSET
    encoding_format: str | UnsetType = UNSET


class _Item(Struct):
    index: int
    embedding: list[float] | str


class _Reply(Struct):
    data: list[_Item]


class _Options(NamedTuple):
    """What a server may not know: vectors in base64, and vectors of a length that is asked for."""

    packed: bool
    shortened: bool


_CANDIDATES = (_Options(True, True), _Options(False, True), _Options(True, False), _Options(False, False))


class OpenAIEmbedder:
    """Asks in batches; finds the text that the server refuses by bisecting.

    Whether a text is at fault, or the server, shows by a text that is known to be good: only while that is taken is
    another one unembeddable.
    """

    enabled = True

    def __init__(
        self, *, model: str, dimensions: int, key: ApiKey, base_url: str | None = None, patience: Patience | None = None
    ) -> None:
        """Raises EmbeddingMisconfigured for an address that is none."""
        self.model = f"openai/{model}/{dimensions}"
        self.dimensions = dimensions
        self._name = model
        try:
            url = address(base_url or OFFICIAL, "/embeddings", _SETTING)
        except ValueError as error:
            raise EmbeddingMisconfigured(str(error)) from None
        self._endpoint = Endpoint(url, key, patience or Patience(), setting=_SETTING)
        self._options = _CANDIDATES[0]
        self._settled = False
        self._most = MAX_TEXTS

    async def start(self) -> None:
        """Nothing is asked before there is a text."""

    async def close(self) -> None:
        """Let go of the connections; calls under way raise EmbeddingUnavailable."""
        await self._endpoint.close()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of length 1 a text, in order. Raises EmbeddingUnavailable, Unembeddable."""
        check_characters(texts)
        return await self._embed(texts, 0, query=False)

    async def embed_query(self, text: str) -> Vector:
        """As `embed`, at once. Raises EmbeddingUnavailable, Unembeddable."""
        check_characters([text])
        (vector,) = await self._embed([text], 0, query=True)
        return vector

    async def _embed(self, texts: Sequence[str], first: int, *, query: bool) -> list[Vector]:
        """The vectors of texts that stand at `first` in the call."""
        vectors: list[Vector] = []
        try:
            for start, end in batches(texts, self._most):
                vectors += await self._embed_batch(texts[start:end], first + start, query=query)
        except ProviderUnavailable as error:
            raise EmbeddingUnavailable.of(error) from None
        return vectors

    async def _embed_batch(self, texts: Sequence[str], first: int, *, query: bool) -> list[Vector]:
        try:
            return await self._ask(texts, self._options, query=query)
        except TimedOut:
            if not query and len(texts) > 1:
                self._most = len(texts) // 2
            raise
        except Refused as refusal:
            if refusal.status == _TOO_LARGE:
                self._most = max(1, len(texts) // 2)
            if not self._settled:
                await self._settle(query=query)
                return await self._embed_batch(texts, first, query=query)
            if refusal.status not in _OF_THE_TEXT:
                await self._settle(query=query)
                raise EmbeddingUnavailable(f"the provider takes one text and refuses another ({refusal})") from None
            if len(texts) > 1:
                half = len(texts) // 2
                left = await self._embed(texts[:half], first, query=query)
                return left + await self._embed(texts[half:], first + half, query=query)
            before = self._options
            await self._settle(query=query)
            if self._options == before:
                # Once more, since another server behind the same address may have answered the probe.
                try:
                    return await self._ask(texts, self._options, query=query)
                except Refused as again:
                    raise Unembeddable(f"the provider refuses it ({again})", index=first) from None
            return await self._embed_batch(texts, first, query=query)

    async def _settle(self, *, query: bool) -> None:
        """Find options that the server takes, the present ones first. Raises EmbeddingUnavailable where none is."""
        refusal: Refused | None = None
        for options in dict.fromkeys((self._options, *_CANDIDATES)):
            try:
                await self._ask([_PROBE], options, query=query)
            except Refused as error:
                refusal = refusal or error
            else:
                self._options = options
                return
        raise EmbeddingUnavailable(
            f"the provider refuses every text ({refusal}); check embedding.model, baseUrl and dimensions"
        )

    async def _ask(self, texts: Sequence[str], options: _Options, *, query: bool) -> list[Vector]:
        request = _Request(self._name, texts)
        if options.shortened:
            request.dimensions = self.dimensions
        if options.packed:
            request.encoding_format = "base64"
        vectors = await self._endpoint.ask(
            msgspec.json.encode(request),
            lambda answer: self._decode(answer, len(texts)),
            largest=(1 << 16) + len(texts) * self.dimensions * _LARGEST_NUMBER,
            query=query,
        )
        self._settled = True
        return vectors

    def _decode(self, answer: bytes, count: int) -> list[Vector]:
        """The vectors in the order of the texts. Raises ValueError."""
        try:
            items = msgspec.json.decode(answer, type=_Reply).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError("it is not what the embeddings API answers") from None
        by_index = {item.index: item.embedding for item in items}
        if len(items) != count or by_index.keys() != set(range(count)):
            raise ValueError(f"it has {len(items)} vectors, or others than were asked for, for {count} texts")
        return [from_floats(self._check_length(_floats(by_index[index]))) for index in range(count)]

    def _check_length(self, values: Sequence[float]) -> Sequence[float]:
        if len(values) != self.dimensions:
            raise ValueError(
                f"its vectors have {len(values)} dimensions, and embedding.dimensions is {self.dimensions}; set that "
                "to what the model makes"
            )
        return values


def batches(texts: Sequence[str], most: int) -> Iterator[tuple[int, int]]:
    """Where each batch of the texts starts and ends: at most so many, and of at most MAX_TOKENS together."""
    if len(texts) == 1:
        yield 0, 1
        return
    start = tokens = 0
    for number, text in enumerate(texts):
        more = estimate_tokens(text)
        if number > start and (number - start == most or tokens + more > MAX_TOKENS):
            yield start, number
            start, tokens = number, 0
        tokens += more
    if texts:
        yield start, len(texts)


def _floats(embedding: list[float] | str) -> Sequence[float]:
    if isinstance(embedding, list):
        return embedding
    packed = b64decode(embedding, validate=True)
    if len(packed) % _WIDTH:
        raise ValueError("a vector in base64 is cut off")
    floats = array("f", packed)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
