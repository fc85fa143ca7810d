"""The worker process: embeds what comes on its standard input, one request at a time, until that ends.

Run as `python -m agentmemory_engine.embedding.worker PARENT`, where PARENT is the process it must not outlive.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import BinaryIO

from agentmemory_engine.embedding.assets import find_assets
from agentmemory_engine.embedding.frames import LENGTH, decode_request, encode
from agentmemory_engine.embedding.minilm import MiniLM

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until standard input ends."""
    die_with(int(sys.argv[1]))
    # An interrupt from the terminal reaches the whole group; the parent decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "wb") as replies, os.fdopen(0, "rb") as requests:
        # A library that writes to standard output must not garble the replies.
        os.dup2(2, 1)
        serve(MiniLM(find_assets()), requests, replies)


def die_with(parent: int) -> None:
    """Be killed when the parent ends, however busy or stopped this process is by then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent} is not the parent any more")


def serve(model: MiniLM, requests: BinaryIO, replies: BinaryIO) -> None:
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
