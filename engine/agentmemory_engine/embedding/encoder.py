"""The MiniLM encoder as an ONNX graph that multiplies in int8.

The shipped graph holds int8 weights but turns them into floats when it is loaded, which is twice the memory and less
than half the speed. Its weights go, unchanged, into a graph of the same encoder that multiplies them as they are; each
matrix product quantises its input as it comes. A run takes one text, so that its vector depends on nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agentmemory_engine.embedding.assets import DIMENSIONS
from agentmemory_engine.embedding.errors import EmbeddingMisconfigured

LAYERS = 6
HEADS = 12
INPUT = "input_ids"
"""The one input: int64, 1 by the number of tokens."""
OUTPUT = "embedding"
"""The one output: float16, 1 by DIMENSIONS, of length 1."""

_EPSILON = 1e-12
_CONTRIB = "com.microsoft"
_EMBEDDINGS = "inner.embeddings."
_LAYER = "inner.encoder.layer.{}."


def build_encoder(shipped: Path, *, unsigned: bool) -> bytes:
    """A serialised model from the shipped one. Raises EmbeddingMisconfigured when that is not the one known here.

    `unsigned` stores the weights as uint8 about 128: the same numbers and the same vectors, for processors whose fast
    product of unsigned by signed bytes saturates (x86 without VNNI).
    """
    model = onnx.load(str(shipped))
    try:
        _Encoder(model.graph, unsigned=unsigned).build()
    except (KeyError, IndexError) as error:
        raise EmbeddingMisconfigured(f"{shipped} is not the MiniLM model that this version knows: {error!r}") from error
    model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    return bytes(model.SerializeToString())


class _Encoder:
    """Replaces the nodes of the graph, in place, since a copy of its weights would double the process at its start.

    A method adds nodes and answers the name of what the last one puts out.
    """

    def __init__(self, graph: onnx.GraphProto, *, unsigned: bool) -> None:
        self._graph = graph
        self._given = {tensor.name: tensor for tensor in graph.initializer}
        self._weights = _weights_by_bias(graph)
        self._unsigned = unsigned
        self._nodes: list[onnx.NodeProto] = []
        self._kept: set[str] = set()
        self._stored: dict[str, onnx.TensorProto] = {}

    def build(self) -> None:
        """Raises KeyError or IndexError when the graph is not the one known here."""
        hidden = self._embed()
        for number in range(LAYERS):
            hidden = self._layer(_LAYER.format(number), hidden)
        mean = self._add("ReduceMean", hidden, axes=[1], keepdims=0)
        unit = self._add("LpNormalization", mean, axis=-1, p=2)
        self._nodes.append(helper.make_node("Cast", [unit], [OUTPUT], to=TensorProto.FLOAT16))
        self._replace()

    def _replace(self) -> None:
        graph = self._graph
        for number in reversed(range(len(graph.initializer))):
            if graph.initializer[number].name not in self._kept:
                del graph.initializer[number]
        graph.initializer.extend(self._stored.values())
        for part in (graph.node, graph.input, graph.output, graph.value_info):
            del part[:]
        graph.node.extend(self._nodes)
        graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.INT64, [1, "tokens"]))
        graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT16, [1, DIMENSIONS]))

    def _embed(self) -> str:
        """Word, position and kind (always the first) of each token."""
        words = self._rows("word_embeddings", INPUT)
        length = self._add("Squeeze", self._add("Shape", INPUT, start=1, end=2))
        places = self._add("Range", self._constant("zero", 0), length, self._constant("one", 1))
        kind = self._store("kind", _array(self._given[_EMBEDDINGS + "token_type_embeddings.weight"])[0])
        tokens = self._add("Add", self._add("Add", words, kind), self._rows("position_embeddings", places))
        return self._normalise(tokens, _EMBEDDINGS + "LayerNorm")

    def _layer(self, prefix: str, hidden: str) -> str:
        heads = (self._linear(f"{prefix}attention.self.{part}", hidden) for part in ("query", "key", "value"))
        attention = self._add("MultiHeadAttention", *heads, domain=_CONTRIB, num_heads=HEADS)
        attended = self._linear(prefix + "attention.output.dense", attention)
        hidden = self._normalise(self._add("Add", attended, hidden), prefix + "attention.output.LayerNorm")
        wide = self._add("Gelu", self._linear(prefix + "intermediate.dense", hidden), domain=_CONTRIB)
        narrow = self._linear(prefix + "output.dense", wide)
        return self._normalise(self._add("Add", narrow, hidden), prefix + "output.LayerNorm")

    def _rows(self, table: str, indices: str) -> str:
        """Rows of an int8 table as floats: only those looked up are ever turned into floats."""
        name = f"{_EMBEDDINGS}{table}.weight"
        rows = self._add("Gather", self._keep(name + "_q"), indices, axis=0)
        scales = self._add("Gather", self._keep(name + "_scale"), indices, axis=0)
        return self._add("Mul", self._add("Cast", rows, to=TensorProto.FLOAT), scales)

    def _linear(self, name: str, x: str) -> str:
        quantised, scale = self._weights[name]
        weights = self._keep_unsigned(quantised) if self._unsigned else self._keep(quantised)
        scales = self._store(scale + "_row", _array(self._given[scale]).reshape(-1))
        # The fourth input is the zero point; without one it is zero, which is right for signed weights.
        zero = self._store("middle", np.uint8(128)) if self._unsigned else ""
        return self._add("DynamicQuantizeMatMul", x, weights, scales, zero, self._keep(name + ".bias"), domain=_CONTRIB)

    def _normalise(self, x: str, name: str) -> str:
        weight, bias = self._keep(name + ".weight"), self._keep(name + ".bias")
        return self._add("LayerNormalization", x, weight, bias, axis=-1, epsilon=_EPSILON)

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _keep(self, name: str) -> str:
        self._kept.add(self._given[name].name)
        return name

    def _keep_unsigned(self, name: str) -> str:
        return self._store(name + "_unsigned", _array(self._given[name]).view(np.uint8) ^ np.uint8(0x80))

    def _constant(self, name: str, value: int) -> str:
        return self._store(name, np.int64(value))

    def _store(self, name: str, values: np.ndarray[Any, Any] | np.generic) -> str:
        self._stored[name] = numpy_helper.from_array(np.asarray(values), name)
        return name


def _array(tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(tensor)


def _weights_by_bias(graph: onnx.GraphProto) -> dict[str, tuple[str, str]]:
    """The names of each linear layer's int8 weights and their scales.

    They have none of their own, but their bias has: bias + x @ (float(weights) * scales).
    """
    source = {output: node for node in graph.node for output in node.output}
    found: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type == "Add" and node.input[1].endswith(".bias") and source[node.input[0]].op_type == "MatMul":
            scaling = source[source[node.input[0]].input[1]]
            found[node.input[1].removesuffix(".bias")] = (source[scaling.input[0]].input[0], scaling.input[1])
    return found
