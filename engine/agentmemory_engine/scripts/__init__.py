"""The Lua scripts: every change to a shard in Redis is one of these, atomic and on one hash tag."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """A script's text and the digest by which Redis knows it."""

    name: str
    source: bytes
    digest: bytes


@cache
def load_script(name: str) -> Script:
    """The script in `<name>.lua`."""
    source = files(__name__).joinpath(f"{name}.lua").read_bytes()
    return Script(name, source, sha1(source, usedforsecurity=False).hexdigest().encode())
