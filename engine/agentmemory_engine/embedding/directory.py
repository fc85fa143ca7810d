"""A model of one's own for the provider Local: a directory with `model.onnx` and `tokenizer.json`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from agentmemory_engine.embedding.errors import EmbeddingMisconfigured

MODEL, TOKENIZER, POOLING = "model.onnx", "tokenizer.json", "1_Pooling/config.json"
_PACKAGES = ("numpy", "onnxruntime", "tokenizers")
_BLOCK = 1 << 20
_PATIENCE = 120.0
"""Seconds that a model may take to be loaded and tried."""


@dataclass(frozen=True)
class ModelDirectory:
    """Its files: the ONNX graph, what it stores beside itself, the tokenizer and, where it is there, the pooling."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / MODEL

    @property
    def tokenizer(self) -> Path:
        return self.path / TOKENIZER

    def takes_first_token(self) -> bool:
        """Whether the first token stands for the text, and not the mean of all. Raises EmbeddingMisconfigured."""
        file = self.path / POOLING
        if not file.exists():
            return False
        try:
            said = json.loads(file.read_text())
            modes = {name for name, value in said.items() if name.startswith("pooling_mode_") and value is True}
        except (OSError, ValueError, AttributeError) as error:
            raise EmbeddingMisconfigured(f"{file} cannot be read: {error}; it is a JSON object, or left out.") from None
        if not modes <= {"pooling_mode_cls_token", "pooling_mode_mean_tokens"} or len(modes) > 1:
            raise EmbeddingMisconfigured(
                f"{file} asks for {', '.join(sorted(modes))}; take a model of mean or first token."
            )
        return modes == {"pooling_mode_cls_token"}

    def name(self, dimensions: int) -> str:
        """Another one with everything that changes a vector."""
        digest = sha256()
        files = [self.model, *sorted(self.path.glob("*.onnx_data")), *sorted(self.path.glob("*.data")), self.tokenizer]
        for file in [*files, self.path / POOLING]:
            digest.update(f"{file.name}\n".encode())
            if file.exists():
                with file.open("rb") as opened:
                    while block := opened.read(_BLOCK):
                        digest.update(block)
        return f"local/{self.path.name}/{digest.hexdigest()[:16]}/{dimensions}"


def find_directory(path: str) -> ModelDirectory:
    """The directory, and the certainty that the packages that run it are there. Raises EmbeddingMisconfigured."""
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise EmbeddingMisconfigured(
            f"`embedding.path` needs {', '.join(missing)}: install agentmemory[embedding], or leave it out."
        )
    found = ModelDirectory(Path(path))
    if not found.path.is_dir():
        raise EmbeddingMisconfigured(
            f"`embedding.path`: there is no directory {path}; mount it, or put it into the image."
        )
    for file in (found.model, found.tokenizer):
        if not file.is_file():
            raise EmbeddingMisconfigured(f"`embedding.path`: {file} is missing; a model is {MODEL} with {TOKENIZER}.")
    return found


def try_directory(directory: ModelDirectory, dimensions: int) -> None:
    """Have the model embed something, in a process of its own. Raises EmbeddingMisconfigured where it cannot."""
    command = [
        sys.executable, "-P", "-m", "agentmemory_engine.embedding.worker", "try", str(directory.path), str(dimensions)
    ]  # fmt: skip
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddingMisconfigured(
            f"`embedding.path`: the model in {directory.path} cannot be tried: {error}"
        ) from None
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or [f"it ended with status {tried.returncode}"])[-1]
        raise EmbeddingMisconfigured(f"`embedding.path`: {directory.path}: {said[:500]}")
