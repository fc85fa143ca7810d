"""Who is told what the engine does, for metrics."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Is told what the engine does, for metrics."""

    def consolidated(self, events: int, seconds: float) -> None: ...

    def dead_lettered(self, events: int) -> None: ...

    def opened(self) -> None: ...

    def embedded(self, events: int, seconds: float) -> None: ...

    def expired(self, events: int) -> None: ...

    def distilled(self, facts: int) -> None: ...

    def failed(self, what: str) -> None: ...


class Silent:
    """An Observer that takes no note."""

    def consolidated(self, events: int, seconds: float) -> None:
        pass

    def dead_lettered(self, events: int) -> None:
        pass

    def opened(self) -> None:
        pass

    def embedded(self, events: int, seconds: float) -> None:
        pass

    def expired(self, events: int) -> None:
        pass

    def distilled(self, facts: int) -> None:
        pass

    def failed(self, what: str) -> None:
        pass
