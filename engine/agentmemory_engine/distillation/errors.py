"""What can be wrong with a part of a session, or with what a model makes of it. Each counts against the session."""

from __future__ import annotations

from agentmemory_engine.errors import MemoryFault


class Refusal(MemoryFault):
    """The session is not distilled as it is; the message says why, and repeats nothing of it."""


class Declined(Refusal):
    """The endpoint is well, and does not take this text, or answers it with half an answer: less of it may do."""


class Nonsense(Refusal):
    """The answer is not what was asked for."""
