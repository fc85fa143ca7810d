"""What goes wrong outside the engine, as types. Each message says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ConfigError(Exception):
    """The configuration cannot be used. One line that names the setting."""


class GaveUp(Exception):
    """What was to be done within a time was not."""


class Refusal(Exception):
    """A request that the HTTP layer itself refuses. `headers` go into the answer."""

    code: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})


class ClientHeaderMissing(Refusal):
    code = "client-header-missing"
    title = "Client header missing"
    status = 403


class ForeignOrigin(Refusal):
    code = "foreign-origin"
    title = "Foreign origin"
    status = 403


class AgentNotAllowed(Refusal):
    code = "agent-not-allowed"
    title = "Agent not allowed"
    status = 403


class WholeAgentNotAllowed(Refusal):
    code = "whole-agent-not-allowed"
    title = "Export and erasure not allowed"
    status = 403


class UnsupportedMediaType(Refusal):
    code = "unsupported-media-type"
    title = "Unsupported media type"
    status = 415


class ClientGone(Exception):
    """The client went away before its request had arrived whole; nobody is there to answer."""
