"""The local model: a text in, its vector out. Runs in the worker process only."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from tokenizers import Tokenizer

from agentmemory_engine.embedding.assets import DIMENSIONS, Assets
from agentmemory_engine.embedding.encoder import INPUT, build_encoder
from agentmemory_engine.embedding.vector import Vector

MAX_TOKENS = 256
"""What is read of a text; the rest is not."""

_HEADER = np.array([DIMENSIONS, 0], ">u2").tobytes()


class MiniLM:
    """All-MiniLM-L6-v2, one thread. Its first runs are made while it is loaded."""

    def __init__(self, assets: Assets) -> None:
        self._tokenizer = Tokenizer.from_buffer(assets.read_tokenizer())
        # The file asks for 128 tokens, always, padded.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        model = build_encoder(assets.model, unsigned=saturates(platform.machine(), _processor_flags()))
        self._session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
        for text in ("warm", "warm " * MAX_TOKENS):
            self.embed(text)
        del model
        _give_back_memory()

    def embed(self, text: str) -> Vector:
        """The vector of length 1 of this text."""
        tokens = self._tokenizer.encode(text).ids
        (vectors,) = self._session.run(None, {INPUT: np.array([tokens], np.int64)})
        return _HEADER + bytes(vectors[0].astype(">f2"))


def session_options() -> onnxruntime.SessionOptions:
    """One thread, and little memory."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Both trade memory for speed; here they cost memory and gain nothing.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def _give_back_memory() -> None:
    """Building the graph leaves the C library holding tens of megabytes that nobody uses."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def saturates(machine: str, flags: set[str]) -> bool:
    """Whether the processor's fast product of unsigned by signed bytes loses what exceeds 16 bits."""
    return machine in ("x86_64", "AMD64") and not flags & {"avx512_vnni", "avx_vnni"}


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
