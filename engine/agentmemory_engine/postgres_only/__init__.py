"""Mode Postgres: turns are accepted by Postgres itself, in one transaction each; there is no Redis."""

from __future__ import annotations

from agentmemory_engine.both import RecallOfBoth
from agentmemory_engine.dead_letters import DeadLetters
from agentmemory_engine.declared import Declared
from agentmemory_engine.direct_status import Reporter
from agentmemory_engine.distillation import Setup, make_distillation
from agentmemory_engine.embedding import Embedder
from agentmemory_engine.events import Events
from agentmemory_engine.export import Exporter
from agentmemory_engine.fact_search import FactSearch
from agentmemory_engine.identity import PostgresIdentity
from agentmemory_engine.indexes import Indexes
from agentmemory_engine.knowledge import Knowledge
from agentmemory_engine.models import Models
from agentmemory_engine.observer import Observer
from agentmemory_engine.parts import Parts
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.postgres_only.barrier import Barrier
from agentmemory_engine.postgres_only.erasure import Erasing
from agentmemory_engine.postgres_only.holds import AgentHold
from agentmemory_engine.postgres_only.intake import Intake
from agentmemory_engine.postgres_only.keys import KeyKeeper
from agentmemory_engine.postgres_only.quarantine import Quarantine
from agentmemory_engine.postgres_only.tail import NoTail
from agentmemory_engine.progress import Progress
from agentmemory_engine.recall import Recall
from agentmemory_engine.retention import Retention
from agentmemory_engine.semantic import Semantic
from agentmemory_engine.sessions import Sessions
from agentmemory_engine.settings import Settings
from agentmemory_engine.timelines import Timelines
from agentmemory_engine.vectors import Vectors
from agentmemory_engine.working import WorkingMemory


def compose(
    settings: Settings, postgres: Postgres, embedder: Embedder, observer: Observer, distil: Setup | None
) -> Parts:
    """The parts of a memory in this mode."""
    progress = Progress()
    models = Models(postgres, embedder, settings, observer)
    intake = Intake(postgres, settings, progress, models)
    tail = NoTail()
    declared = Declared(postgres, tail, settings, models)
    working = WorkingMemory(postgres, intake, settings)
    events = Events(postgres, intake, tail, settings)
    vectors = Vectors(postgres, embedder, settings, observer, progress, models)
    semantic = Semantic(postgres, embedder, models, settings)
    barrier = Barrier(postgres, progress, models)
    search = FactSearch(postgres, semantic, models)
    recall = Recall(postgres, semantic, Indexes(postgres), tail, settings)
    sessions = Sessions(postgres, declared, tail, settings, distill=distil is not None)
    knowledge = Knowledge(postgres, declared, search, settings, progress)
    distillations, distiller = make_distillation(
        postgres, declared, events, sessions, knowledge, settings, observer, distil
    )
    letters = DeadLetters(postgres, models)
    kept_for_good = settings.retention is None
    return Parts(
        intake=intake,
        working=working,
        events=events,
        timelines=Timelines(postgres, events, settings),
        recall=recall,
        recall_of_both=RecallOfBoth(recall, search, semantic),
        sessions=sessions,
        knowledge=knowledge,
        distillations=distillations,
        distiller=distiller,
        exporter=Exporter(postgres, declared, tail, events, working, barrier, settings),
        erasing=Erasing(postgres, settings),
        barrier=barrier,
        reporter=Reporter(postgres, settings, lambda: models.known),
        identity=PostgresIdentity(postgres, settings),
        dead_letters=letters,
        models=models,
        quarantine=Quarantine(postgres, letters, settings),
        vectors=vectors,
        retention=None if kept_for_good else Retention(postgres, settings, AgentHold(postgres), observer),
        channels=None,
        consolidator=None,
        stores={"postgres": postgres},
        workers={"keys": KeyKeeper(postgres, observer), "models": models},
    )
