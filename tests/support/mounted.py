"""A directory as the kubelet mounts a Secret: files are links into a version, and a link to the version is swapped."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from agentmemory_operator.certificates import Pair, issue, new_authority

AUTHORITY = new_authority("injector", datetime.now(UTC))
FILES = ("tls.crt", "tls.key")


def leaf(*, after: timedelta = timedelta(0)) -> Pair:
    """A certificate for localhost, issued `after` from now."""
    return issue(AUTHORITY, ["localhost"], datetime.now(UTC) + after)


class MountedSecret:
    """`tls.crt` and `tls.key`, both swapped at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = count(1)

    def put(self, pair: Pair) -> None:
        self.write(pair.certificate, pair.key)

    def write(self, certificate: str, key: str) -> None:
        version = self.directory / f"..{next(self._numbers)}"
        version.mkdir()
        for name, text in zip(FILES, (certificate, key), strict=True):
            (version / name).write_text(text)
        swap = self.directory / "..data_tmp"
        swap.symlink_to(version.name)
        os.replace(swap, self.directory / "..data")
        for name in FILES:
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")

    def remove(self) -> None:
        """The files are gone for a while."""
        (self.directory / "..data").unlink()
