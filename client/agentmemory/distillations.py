"""Sessions that facts are to be drawn from."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class Distillation(Struct, kw_only=True):
    """A session that facts are to be drawn from. `attempts` were refused in a row; `refused` says why the last one."""

    agent: str
    session: str
    asked_at: datetime
    attempts: int = 0
    refused: str | None = None
    given_up: bool = False


class DistillationPage(Struct, kw_only=True):
    """Some of them, in the order in which they were asked for; `cursor` continues it and is None at the end."""

    distillations: list[Distillation]
    cursor: str | None = None
