"""Mode Hybrid: turns are accepted by Redis and consolidated into Postgres."""

from __future__ import annotations

from dataclasses import dataclass

from agentmemory_engine.barrier import Barrier
from agentmemory_engine.both import RecallOfBoth
from agentmemory_engine.channels import Channels
from agentmemory_engine.consolidation import Consolidator
from agentmemory_engine.dead_letters import DeadLetters
from agentmemory_engine.declared import Declared
from agentmemory_engine.distillation import Setup, make_distillation
from agentmemory_engine.embedding import Embedder
from agentmemory_engine.erasure import Erasing
from agentmemory_engine.events import Events
from agentmemory_engine.export import Exporter
from agentmemory_engine.fact_search import FactSearch
from agentmemory_engine.identity import Identity
from agentmemory_engine.indexes import Indexes
from agentmemory_engine.journal import Journal
from agentmemory_engine.knowledge import Knowledge
from agentmemory_engine.models import Models
from agentmemory_engine.observer import Observer
from agentmemory_engine.parts import Parts
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.progress import Progress
from agentmemory_engine.quarantine import Quarantine
from agentmemory_engine.recall import Recall
from agentmemory_engine.redis import Redis
from agentmemory_engine.retention import OwnedShards, Retention
from agentmemory_engine.semantic import Semantic
from agentmemory_engine.sessions import Sessions
from agentmemory_engine.settings import Settings
from agentmemory_engine.shards import Opener, Ownership
from agentmemory_engine.status import Reporter
from agentmemory_engine.tail import Tail
from agentmemory_engine.timelines import Timelines
from agentmemory_engine.vectors import Vectors
from agentmemory_engine.working import WorkingMemory
from agentmemory_engine.writer import Writer


@dataclass(frozen=True, kw_only=True)
class HybridParts(Parts):
    """The parts of a memory in this mode, and what they are made of."""

    redis: Redis
    postgres: Postgres
    journal: Journal
    tail: Tail
    knowledge: Knowledge
    models: Models
    vectors: Vectors
    consolidator: Consolidator


def compose(
    settings: Settings, redis: Redis, postgres: Postgres, embedder: Embedder, observer: Observer, distil: Setup | None
) -> HybridParts:
    """The parts of a memory in this mode."""
    progress = Progress()
    journal = Journal(redis, settings)
    tail = Tail(journal, settings)
    models = Models(postgres, embedder, settings, observer)
    declared = Declared(postgres, tail, settings, models)
    working = WorkingMemory(postgres, journal, settings)
    events = Events(postgres, journal, tail, settings)
    vectors = Vectors(postgres, embedder, settings, observer, progress, models)
    semantic = Semantic(postgres, embedder, models, settings)
    consolidator = Consolidator(
        journal,
        Opener(redis, postgres, journal, settings),
        Ownership(postgres, settings),
        Writer(postgres, settings, models),
        settings,
        observer,
        progress,
    )
    barrier = Barrier(postgres, consolidator, progress, settings, models)
    search = FactSearch(postgres, semantic, models)
    recall = Recall(postgres, semantic, Indexes(postgres), tail, settings)
    sessions = Sessions(postgres, declared, tail, settings, distill=distil is not None)
    knowledge = Knowledge(postgres, declared, search, settings, progress)
    distillations, distiller = make_distillation(
        postgres, declared, events, sessions, knowledge, settings, observer, distil
    )
    letters = DeadLetters(postgres, models)
    hold = OwnedShards(postgres, settings, lambda: consolidator.owned)
    return HybridParts(
        redis=redis,
        postgres=postgres,
        journal=journal,
        tail=tail,
        intake=journal,
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
        erasing=Erasing(postgres, journal, barrier, settings),
        barrier=barrier,
        reporter=Reporter(redis, postgres, journal, settings, lambda: models.known),
        identity=Identity(redis, postgres, settings),
        dead_letters=letters,
        models=models,
        quarantine=Quarantine(postgres, journal, working, tail, letters, settings),
        vectors=vectors,
        retention=Retention(postgres, settings, hold, observer) if settings.retention is not None else None,
        channels=Channels(redis, settings),
        consolidator=consolidator,
        stores={"redis": redis, "postgres": postgres},
        workers={"models": models},
    )
