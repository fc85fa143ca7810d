"""A model of one's own: a text in, its vector out. Runs in the worker process only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from tokenizers import Tokenizer

from agentmemory_engine.embedding.directory import ModelDirectory
from agentmemory_engine.embedding.errors import EmbeddingMisconfigured
from agentmemory_engine.embedding.minilm import MAX_TOKENS, session_options
from agentmemory_engine.embedding.vector import Vector

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_SENTENCE = "sentence_embedding"


class OnnxModel:
    """An encoder, one thread. What it puts out is a vector of the text, or one of each token, which is pooled."""

    def __init__(self, directory: ModelDirectory, dimensions: int) -> None:
        """Raises EmbeddingMisconfigured for files that are no such model, or one of other dimensions."""
        self._dimensions = dimensions
        self._header = np.array([dimensions, 0], ">u2").tobytes()
        self._first = directory.takes_first_token()
        try:
            self._tokenizer = Tokenizer.from_file(str(directory.tokenizer))
            self._session = onnxruntime.InferenceSession(
                str(directory.model), session_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # Both libraries raise what they like.
            raise EmbeddingMisconfigured(f"the model cannot be loaded: {' '.join(str(error).split())}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._inputs = [one.name for one in self._session.get_inputs()]
        if unknown := set(self._inputs) - set(_INPUTS):
            raise EmbeddingMisconfigured(
                f"the model wants {', '.join(sorted(unknown))} beside {', '.join(_INPUTS)}; take an encoder of text"
            )
        outputs = [one.name for one in self._session.get_outputs()]
        self._output = _SENTENCE if _SENTENCE in outputs else outputs[0]
        found = self._run("warm").shape[-1]
        if found != dimensions:
            raise EmbeddingMisconfigured(
                f"its vectors have {found} dimensions, and `embedding.dimensions` is {dimensions}; set it to {found}"
            )

    def embed(self, text: str) -> Vector:
        """The vector of length 1 of this text."""
        vector = self._run(text)
        length = np.linalg.norm(vector)
        if not np.isfinite(length) or length == 0:
            raise ValueError("the model puts out no direction")
        return self._header + bytes((vector / length).astype(">f2"))

    def _run(self, text: str) -> np.ndarray[Any, Any]:
        tokens = self._tokenizer.encode(text)
        given = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
        (found,) = self._session.run([self._output], {name: np.array([given[name]], np.int64) for name in self._inputs})
        if found.ndim == 2 and len(found) == 1:
            vector = found[0]
        elif found.ndim == 3 and len(found) == 1:
            vector = found[0, 0] if self._first else found[0].mean(axis=0)
        else:
            raise EmbeddingMisconfigured(
                f"the model puts out {found.ndim} axes, and 2 (a text) or 3 (its tokens) are known"
            )
        return np.asarray(vector, np.float64)
