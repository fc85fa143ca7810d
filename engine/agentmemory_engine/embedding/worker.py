"""The worker process: embeds what comes on its standard input, one request at a time, until that ends.

Run as `python -m agentmemory_engine.embedding.worker PARENT [DIRECTORY DIMENSIONS]`, where PARENT is the process it
must not outlive, and DIRECTORY holds another model than its own; with `try` for PARENT, it says what is wrong with
that, and ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import BinaryIO, Protocol

from agentmemory_engine.embedding.assets import find_assets
from agentmemory_engine.embedding.directory import find_directory
from agentmemory_engine.embedding.frames import LENGTH, decode_request, encode
from agentmemory_engine.embedding.vector import Vector

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until standard input ends; or try a model."""
    parent, *other = sys.argv[1:]
    if parent == "try":
        try_model(*other)
        return
    die_with(int(parent))
    # An interrupt from the terminal reaches the whole group; the parent decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "wb") as replies, os.fdopen(0, "rb") as requests:
        # A library that writes to standard output must not garble the replies.
        os.dup2(2, 1)
        serve(load(*other), requests, replies)


def die_with(parent: int) -> None:
    """Be killed when the parent ends, however busy or stopped this process is by then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent} is not the parent any more")


class Model(Protocol):
    """Of texts, one at a time."""

    def embed(self, text: str) -> Vector: ...


def load(directory: str = "", dimensions: str = "") -> Model:
    """The model in this directory, or our own."""
    if not directory:
        from agentmemory_engine.embedding.minilm import MiniLM

        return MiniLM(find_assets())
    from agentmemory_engine.embedding.onnx_model import OnnxModel

    return OnnxModel(find_directory(directory), int(dimensions))


def try_model(directory: str, dimensions: str) -> None:
    """Embed something. Exits with what is wrong, in the last line, where it cannot."""
    try:
        load(directory, dimensions).embed("Is anyone there?")
    except Exception as error:
        sys.exit(str(error))


def serve(model: Model, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer request after request, until there are no more.

    A text that cannot be embedded ends the process: whether it is the text or the machine that failed shows when it is
    tried again.
    """
    while head := requests.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        texts = decode_request(requests.read(length))
        replies.write(encode([model.embed(text) for text in texts]))
        replies.flush()


if __name__ == "__main__":
    main()
