"""The logins of a memory's sidecars and their rotation: pure decisions over what Secret <memory>-credentials holds.

Two logins alternate. A rotation writes the next one into the Secret, sets it in the stores, makes sure that all take
it, and only then gives it to the sidecars; the former one is dropped when all of them have had time to notice. All of
it stands in the Secret, so that any operator can go on from any point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentmemory_engine.redis import Credentials

Changes = dict[str, str | None]


@dataclass(frozen=True)
class Logins:
    """One login to each store that the mode uses."""

    by_store: Mapping[str, Credentials]

    @property
    def redis(self) -> Credentials:
        return self.by_store["redis"]

    @property
    def postgres(self) -> Credentials:
        return self.by_store["postgres"]


def current(data: Mapping[str, str], stores: Iterable[str]) -> Logins:
    """What the sidecars use."""
    return _read(data, "", stores)


def upcoming(data: Mapping[str, str], stores: Iterable[str]) -> Logins | None:
    """What they will use, once the stores take it."""
    return _read(data, "next-", stores) if data.get("next-for") else None


def retired(data: Mapping[str, str], store: str) -> str:
    """The username in a store that nobody should use any more, where there is one."""
    return data[f"retired-{store}-username"]


def all_of(data: Mapping[str, str], stores: Iterable[str]) -> list[Logins]:
    """The logins that the stores have to take: the current one, the next, and the former until it is dropped."""
    retired = [_read(data, "retired-", stores)] if data.get("retired-at") else []
    return lasting(data, stores) + retired


def lasting(data: Mapping[str, str], stores: Iterable[str]) -> list[Logins]:
    """The logins that stay when the former one is dropped: the current one and the next."""
    found = [current(data, stores), upcoming(data, stores)]
    return [one for one in found if one is not None]


def begin(data: Mapping[str, str], wanted: str, passwords: Mapping[str, str]) -> Changes:
    """What to write for a rotation to begin; nothing where it was done, is under way, or the former is not over.

    `wanted` is the value of the annotation that asks for it; `passwords` are new ones, by store.
    """
    if not wanted or wanted == data.get("rotation", "") or data.get("next-for") or data.get("retired-at"):
        return {}
    changes: Changes = {"next-for": wanted}
    for store, password in passwords.items():
        changes[f"next-{store}-username"] = other(data[f"{store}-username"])
        changes[f"next-{store}-password"] = password
    return changes


def promote(data: Mapping[str, str], now: datetime, stores: Iterable[str]) -> Changes:
    """What to write once the stores take the next login: it becomes the current one; the former one's time begins."""
    changes: Changes = {"rotation": data["next-for"], "next-for": None, "retired-at": now.isoformat()}
    for store in stores:
        for part in ("username", "password"):
            changes[f"retired-{store}-{part}"] = data[f"{store}-{part}"]
            changes[f"{store}-{part}"] = data[f"next-{store}-{part}"]
            changes[f"next-{store}-{part}"] = None
    return changes


def remaining(data: Mapping[str, str], now: datetime, grace: float) -> float | None:
    """Seconds until the former login may be dropped, 0 when it may; None where there is none."""
    if not data.get("retired-at"):
        return None
    over = datetime.fromisoformat(data["retired-at"]) + timedelta(seconds=grace)
    return max(0.0, (over - now).total_seconds())


def forget(data: Mapping[str, str]) -> Changes:
    """What to write once the former login is dropped."""
    return {key: None for key in data if key.startswith("retired-")}


def usernames(data: Mapping[str, str]) -> set[str]:
    """All that the Secret names, in whatever part."""
    return {value for key, value in data.items() if key.endswith("-username")}


def pair(schema: str) -> set[str]:
    """The two usernames that a memory can have."""
    return {f"{schema}_1", f"{schema}_2"}


def other(username: str) -> str:
    """The second of the two logins: `…_1` and `…_2` alternate."""
    base, _, number = username.rpartition("_")
    return f"{base}_{2 if number == '1' else 1}"


def _read(data: Mapping[str, str], prefix: str, stores: Iterable[str]) -> Logins:
    return Logins(
        {one: Credentials(data[f"{prefix}{one}-username"], data[f"{prefix}{one}-password"]) for one in stores}
    )
