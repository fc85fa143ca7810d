"""Which provider a specification gets, and what it is told when it asks for what is not there."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import pytest

from agentmemory_engine.embedding import EmbeddingMisconfigured, EmbeddingUnavailable, open_embedder
from agentmemory_engine.embedding import assets as assets_module
from agentmemory_engine.embedding.minilm import saturates


async def test_none_is_disabled_and_refuses() -> None:
    embedder = open_embedder("None", dimensions=384)
    assert not embedder.enabled
    await embedder.start()
    with pytest.raises(EmbeddingUnavailable, match="choose Local"):
        await embedder.embed(["text"])
    with pytest.raises(EmbeddingUnavailable, match="choose Local"):
        await embedder.embed_query("text")
    await embedder.close()


def test_local_names_its_model_and_dimensions() -> None:
    embedder = open_embedder("Local", dimensions=384)
    assert (embedder.enabled, embedder.dimensions) == (True, 384)
    assert embedder.model == "all-minilm-l6-v2/int8-dynamic/384"


@pytest.mark.parametrize("dimensions", [0, 383, 1536])
def test_local_has_its_own_dimensions_only(dimensions: int) -> None:
    with pytest.raises(EmbeddingMisconfigured, match=f"`embedding.dimensions` is {dimensions}.*set it to 384"):
        open_embedder("Local", dimensions=dimensions)


@pytest.mark.parametrize("provider", ["openai", "local", ""])
def test_an_unknown_provider_is_refused(provider: str) -> None:
    with pytest.raises(EmbeddingMisconfigured, match="there are Local, OpenAI and None"):
        open_embedder(provider, dimensions=384)


def test_openai_names_its_model_and_dimensions() -> None:
    embedder = open_embedder("OpenAI", model="text-embedding-3-small", dimensions=512)
    assert (embedder.enabled, embedder.dimensions) == (True, 512)
    assert embedder.model == "openai/text-embedding-3-small/512"


def test_openai_needs_a_model() -> None:
    with pytest.raises(EmbeddingMisconfigured, match=r"`embedding\.model` is missing"):
        open_embedder("OpenAI", dimensions=512)


@pytest.mark.parametrize(
    "address", ["", "api.openai.com", "ftp://host", "https://", "https://key@host", "http://host?a=1", "http://host:x"]
)
def test_openai_needs_an_address(address: str) -> None:
    if not address:
        open_embedder("OpenAI", model="m", dimensions=8, base_url=address)
        return
    with pytest.raises(EmbeddingMisconfigured, match="baseUrl"):
        open_embedder("OpenAI", model="m", dimensions=8, base_url=address)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "onnxruntime" else find_spec(name)

    monkeypatch.setattr(assets_module, "find_spec", find)
    with pytest.raises(EmbeddingMisconfigured, match=r"needs onnxruntime: install agentmemory\[embedding\]"):
        open_embedder("Local", dimensions=384)


def test_a_model_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets_module, "_TOKENIZER", ("no-such-distribution", "model.zip"))
    with pytest.raises(EmbeddingMisconfigured, match=r"model\.zip of the package no-such-distribution"):
        open_embedder("Local", dimensions=384)


def test_processors_without_vnni_get_the_weights_that_do_not_saturate() -> None:
    assert saturates("x86_64", {"avx2", "avx512f"})
    assert saturates("AMD64", set())
    assert not saturates("x86_64", {"avx2", "avx_vnni"})
    assert not saturates("x86_64", {"avx512f", "avx512_vnni"})
    assert not saturates("aarch64", set())
