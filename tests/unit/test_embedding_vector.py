"""Vectors as bytes: what pgvector reads, and what is no vector."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgvector import HalfVector

from agentmemory_engine.embedding import dimension_of, from_floats, to_floats

components = st.floats(allow_nan=False, allow_infinity=False)
directions = st.lists(components, min_size=1, max_size=400).filter(any)


@given(directions)
def test_any_direction_becomes_a_vector_of_length_one(values: list[float]) -> None:
    vector = from_floats(values)
    floats = to_floats(vector)
    assert dimension_of(vector) == len(floats) == len(values)
    assert math.hypot(*floats) == pytest.approx(1.0, abs=2e-3)
    peak = max(map(abs, values))
    exact = [value / peak for value in values]
    assert floats == pytest.approx([value / math.hypot(*exact) for value in exact], abs=5e-4)


def test_the_bytes_are_what_pgvector_reads() -> None:
    vector = from_floats([3, 0, -4])
    assert HalfVector.from_binary(vector).to_list() == to_floats(vector)
    assert vector == HalfVector(to_floats(vector)).to_binary()


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.nan, 1.0], [math.inf, 1.0], [1.0, -math.inf], [10**400, 1]])
def test_what_is_not_finite_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        from_floats(values)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-0.0]])
def test_zeros_have_no_direction(values: list[float]) -> None:
    with pytest.raises(ValueError, match="all zeros"):
        from_floats(values)


@pytest.mark.parametrize("length", [0, 16_001])
def test_a_length_that_no_vector_has_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"it has {length} dimensions"):
        from_floats([1.0] * length)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\2\0\0\0\0", b"\0\1\0\1\0\0", b"\0\1\0\0\0\0\0"])
def test_other_bytes_are_no_vector(data: bytes) -> None:
    with pytest.raises(ValueError, match="vector"):
        dimension_of(data)
    with pytest.raises(ValueError, match="vector"):
        to_floats(data)


def test_the_engine_side_of_embedding_loads_no_numpy() -> None:
    """Without local embedding a sidecar has no memory to spare for it; with it, the other process holds it."""
    script = (
        "import sys, agentmemory_engine.embedding as e, agentmemory_engine.embedding.chunks\n"
        "import agentmemory_engine.embedding.text\n"
        "e.open_embedder('Local', dimensions=384), e.open_embedder('None', dimensions=384)\n"
        "sys.exit(', '.join({'numpy', 'onnx', 'onnxruntime', 'tokenizers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
