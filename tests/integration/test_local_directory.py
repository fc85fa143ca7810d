"""The provider Local with a model of one's own: a directory with an ONNX graph and a tokenizer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from agentmemory_engine.embedding import EmbeddingMisconfigured, open_embedder, to_floats

WORDS = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3}
TABLE = np.eye(4, dtype=np.float32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model whose vector of a text is the mean of one axis a word."""
    found = tmp_path / "colours"
    found.mkdir()
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(found / "tokenizer.json"))
    write_model(found, ["input_ids", "attention_mask"])
    return found


def write_model(directory: Path, inputs: list[str]) -> None:
    node = helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])
    graph = helper.make_graph(
        [node], "colours",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"]) for name in inputs],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, "tokens", 4])],
        [numpy_helper.from_array(TABLE, "table")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(directory / "model.onnx"))


def open_local(path: Path, dimensions: int = 4) -> Any:
    return open_embedder("Local", dimensions=dimensions, path=str(path))


async def test_its_vectors_are_those_of_the_model(directory: Path) -> None:
    embedder = open_local(directory)
    try:
        vectors = [to_floats(vector) for vector in await embedder.embed(["red", "red blue"])]
        half = math.sqrt(0.5)
        assert vectors[0] == pytest.approx([0, 1, 0, 0]) and vectors[1] == pytest.approx([0, half, 0, half], abs=1e-3)
        assert to_floats(await embedder.embed_query("green")) == pytest.approx([0, 0, 1, 0])
    finally:
        await embedder.close()


async def test_the_first_token_stands_for_the_text_where_the_model_says_so(directory: Path) -> None:
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    embedder = open_local(directory)
    try:
        assert to_floats(await embedder.embed_query("red blue")) == pytest.approx([0, 1, 0, 0])
    finally:
        await embedder.close()


def test_its_name_changes_with_what_changes_a_vector(directory: Path) -> None:
    name = open_local(directory).model
    assert name.startswith("local/colours/") and name.endswith("/4") and open_local(directory).model == name
    TABLE_OF_NOW = TABLE.copy()
    try:
        TABLE[1] *= 2
        write_model(directory, ["input_ids"])
        assert open_local(directory).model != name
    finally:
        TABLE[:] = TABLE_OF_NOW


def test_what_is_wrong_is_said(directory: Path, tmp_path: Path) -> None:
    for path, dimensions, said in (
        (tmp_path / "none", 4, "no directory"), (tmp_path, 4, "model.onnx is missing"),
        (directory, 384, "have 4 dimensions, and `embedding.dimensions` is 384; set it to 4"),
    ):  # fmt: skip
        with pytest.raises(EmbeddingMisconfigured, match=said):
            open_local(path, dimensions)
    write_model(directory, ["input_ids", "pixel_values"])
    with pytest.raises(EmbeddingMisconfigured, match="wants pixel_values"):
        open_local(directory)
    (directory / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(EmbeddingMisconfigured, match="cannot be loaded"):
        open_local(directory)
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(EmbeddingMisconfigured, match="max_tokens"):
        open_local(directory)
