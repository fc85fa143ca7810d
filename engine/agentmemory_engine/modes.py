"""Modes: which parts a memory is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentmemory_engine.embedding import Embedder
from agentmemory_engine.errors import NotInThisMode
from agentmemory_engine.observer import Observer
from agentmemory_engine.settings import Settings

if TYPE_CHECKING:
    from agentmemory_engine.distillation import Setup
    from agentmemory_engine.parts import Parts
    from agentmemory_engine.postgres import Postgres
    from agentmemory_engine.redis import Redis


def compose(
    settings: Settings, redis: Redis | None, postgres: Postgres | None, embedder: Embedder, observer: Observer,
    distil: Setup | None = None,
) -> Parts:  # fmt: skip
    """The parts of a memory in its mode. Only what that mode needs is imported."""
    match settings.mode:
        case "Postgres":
            assert postgres is not None
            from agentmemory_engine import postgres_only

            return postgres_only.compose(settings, postgres, embedder, observer, distil)
        case "Redis":
            raise NotInThisMode("Mode Redis is not served yet.")
        case "Hybrid":
            assert redis is not None and postgres is not None
            from agentmemory_engine import hybrid

            return hybrid.compose(settings, redis, postgres, embedder, observer, distil)
