"""Logins: which one holds at the moment, and which one goes on where that is not accepted yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Credentials:
    """A login. Its password never shows in a repr, so never in a log."""

    username: str
    password: str = field(repr=False)


class Logins:
    """The login of the moment, and the one that worked last: that one goes on where a new one is not accepted yet."""

    def __init__(self, ask: Callable[[], Credentials]) -> None:
        self.ask = ask
        self.worked: Credentials | None = None

    def candidates(self) -> list[Credentials]:
        """What to try, in this order; never empty. Raises StoreUnavailable."""
        fresh = self.ask()
        return [fresh] if self.worked in (None, fresh) else [fresh, self.worked]
