"""What a memory needs to distil, and the parts that it makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentmemory_engine.declared import Declared
from agentmemory_engine.distillation.chat import Chat
from agentmemory_engine.distillation.queue import Distillations
from agentmemory_engine.distillation.worker import Bounds, Distiller
from agentmemory_engine.events import Events
from agentmemory_engine.knowledge import Knowledge
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.sessions import Sessions
from agentmemory_engine.settings import Settings


@dataclass(frozen=True)
class Setup:
    """By whom facts are drawn from sessions, and at what cost."""

    chat: Chat
    bounds: Bounds = field(default_factory=Bounds)


def make_distillation(
    postgres: Postgres, declared: Declared, events: Events, sessions: Sessions, knowledge: Knowledge,
    settings: Settings, observer: Observer, setup: Setup | None,
) -> tuple[Distillations, Distiller | None]:  # fmt: skip
    """What is asked for, and who does it; None where it is off."""
    asked = Distillations(postgres, declared, sessions, settings, enabled=setup is not None)
    if setup is None:
        return asked, None
    return asked, Distiller(postgres, events, knowledge, setup.chat, settings, observer, setup.bounds)
