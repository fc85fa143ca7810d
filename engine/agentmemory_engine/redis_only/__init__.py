"""Mode Redis: everything is in Redis, within bounds; there is no Postgres."""

from __future__ import annotations

from agentmemory_engine.both import RecallOfBoth
from agentmemory_engine.channels import Channels
from agentmemory_engine.embedding import Embedder
from agentmemory_engine.events import TailEvents
from agentmemory_engine.observer import Observer
from agentmemory_engine.parts import Parts
from agentmemory_engine.progress import Progress
from agentmemory_engine.redis import Redis
from agentmemory_engine.redis_only.barrier import Barrier
from agentmemory_engine.redis_only.dead_letters import DeadLetters
from agentmemory_engine.redis_only.embedding import Embedding, News
from agentmemory_engine.redis_only.erasure import Erasing
from agentmemory_engine.redis_only.export import Exporter
from agentmemory_engine.redis_only.identity import Identity
from agentmemory_engine.redis_only.keeper import Keeper
from agentmemory_engine.redis_only.knowledge import FactSearch, Knowledge
from agentmemory_engine.redis_only.log import Log
from agentmemory_engine.redis_only.matrices import Matrices
from agentmemory_engine.redis_only.openings import Openings
from agentmemory_engine.redis_only.quarantine import Quarantine
from agentmemory_engine.redis_only.recall import LogIndexes, LogRecall
from agentmemory_engine.redis_only.records import RecordStore
from agentmemory_engine.redis_only.retention import Retention
from agentmemory_engine.redis_only.sessions import Sessions
from agentmemory_engine.redis_only.status import Reporter
from agentmemory_engine.redis_only.tail import LogTail
from agentmemory_engine.redis_only.vectors import VectorStore
from agentmemory_engine.redis_only.working import LeasedDocuments
from agentmemory_engine.semantic import QueryVectors
from agentmemory_engine.settings import Settings
from agentmemory_engine.timelines import TailTimelines


def compose(settings: Settings, redis: Redis, embedder: Embedder, observer: Observer) -> Parts:
    """The parts of a memory in this mode."""
    progress, news = Progress(), News()
    openings = Openings(redis, settings, observer)
    log = Log(redis, settings, openings, news.tell)
    tail = LogTail(log, settings)
    records = RecordStore(redis, settings, openings, news.tell)
    events = TailEvents(log, tail, settings)
    working = LeasedDocuments(log, settings)
    vectors = VectorStore(redis, settings, embedder)
    queries = QueryVectors(embedder)
    search = FactSearch(records, queries, Matrices(vectors))
    letters = DeadLetters(redis, settings)
    recall = LogRecall(queries, LogIndexes(tail), Matrices(vectors))
    kept_for_good = settings.retention is None
    return Parts(
        intake=log,
        working=working,
        events=events,
        timelines=TailTimelines(events),
        recall=recall,
        recall_of_both=RecallOfBoth(recall, search, queries),
        sessions=Sessions(records),
        knowledge=Knowledge(records, search, embed=embedder.enabled),
        exporter=Exporter(events, working, records, letters, settings, embed=embedder.enabled),
        erasing=Erasing(log),
        barrier=Barrier(redis, settings, openings, tail, vectors, progress, news.tell),
        reporter=Reporter(redis, settings, openings, embed=embedder.enabled),
        identity=Identity(redis, settings),
        dead_letters=letters,
        quarantine=Quarantine(redis, settings, openings, working=working, tail=tail, letters=letters),
        vectors=Embedding(
            redis, settings, openings, embedder, observer, progress,
            tail=tail, records=records, vectors=vectors, news=news,
        ),
        retention=None if kept_for_good else Retention(redis, log, settings, openings, observer),
        channels=Channels(redis, settings),
        consolidator=None,
        stores={"redis": redis},
        workers={"openings": Keeper(redis, settings, openings, observer)},
    )  # fmt: skip
