"""What Prometheus is told. Labels are bounded: routes are templates, and no agent is ever named."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agentmemory_engine.answers import Status

_REQUEST_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
_BATCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
STORES = ("redis", "postgres")


class StoreGauges(Collector):
    """Gauges that only the stores can tell, from the status of this scrape. What is not known is left out."""

    def __init__(self, stores: Sequence[str]) -> None:
        self._stores = stores
        self.status: Status | None = None
        self.now = 0.0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status = self.status
        down = self._stores if status is None else status.degraded
        up = GaugeMetricFamily("agentmemory_store_up", "Whether the store answered this scrape.", labels=["store"])
        for store in self._stores:
            up.add_metric([store], float(store not in down))
        yield up
        if status is None:
            return
        oldest = self.now - status.lag if status.lag is not None and status.pending else None
        values = (
            ("consolidation_lag_seconds", "Age of the oldest acknowledged event that is not in Postgres.", status.lag),
            ("oldest_pending_timestamp_seconds", "When that event was accepted; absent with none pending.", oldest),
            ("pending_turns", "Turns in the journal that are not in Postgres yet.", status.pending),
            ("dead_letters", "Events that Postgres refuses, kept for a person to look at.", status.dead_letters),
            (
                "quarantined_documents",
                "Documents that cannot be read, set aside for a person to look at.",
                status.quarantined,
            ),
            ("unembedded_events", "Durable events and facts that wait for their vector.", status.unembedded),
            ("unembeddable_events", "Events and facts that no vector can be made of.", status.unembeddable),
            ("back_fill_left", "Events and facts of before that a new model has no vector of yet.", _left(status)),
            ("undistilled_sessions", "Sessions that facts are still to be drawn from.", status.undistilled),
            ("undistillable_sessions", "Sessions whose distillation was given up.", status.undistillable),
        )
        for name, documentation, value in values:
            if value is not None:
                yield GaugeMetricFamily(f"agentmemory_{name}", documentation, value=value)


def _left(status: Status) -> int | None:
    """Over all models that are kept up; 0 when each of them covers all."""
    if status.models is None:
        return None
    return sum(one.total - one.done for one in status.models if one.kept and not one.complete)


class Metrics:
    """One sidecar's metrics; it is the engine's Observer as well."""

    def __init__(self, stores: Sequence[str] = STORES) -> None:
        # A `_created` gauge beside each counter would double what is scraped.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.stores = StoreGauges(stores)
        self.registry.register(self.stores)
        self.owned_shards = self._gauge("owned_shards", "Shards that this sidecar consolidates.")
        self.last_consolidation = self._gauge(
            "last_consolidation_timestamp_seconds", "When the worker last went through its shards without a failure."
        )
        self._consolidated = self._counter("events_consolidated", "Events that this sidecar moved into Postgres.")
        self._dead_lettered = self._counter("dead_lettered", "Events that this sidecar made dead letters.")
        self._embedded = self._counter("events_embedded", "Events and facts that this sidecar embedded.")
        self._expired = self._counter("events_expired", "Events that this sidecar deleted as older than they are kept.")
        self._distilled = self._counter("facts_distilled", "Facts that this sidecar drew from sessions.")
        self._openings = self._counter("openings", "Shards that this sidecar opened for a new run of Redis.")
        self._failures = Counter(
            "agentmemory_failures", "Rounds of a worker that failed and are tried again.", ["part"],
            registry=self.registry,
        )  # fmt: skip
        self._batches = Histogram(
            "agentmemory_consolidation_batch_seconds", "From reading a batch to its commit and trim.",
            buckets=_BATCH_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._requests = Histogram(
            "agentmemory_http_request_seconds", "Requests of the API, by route.", ["route", "method", "status_class"],
            buckets=_REQUEST_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._children: dict[tuple[str, str, int], Histogram] = {}
        build = Gauge("agentmemory_build_info", "Always 1.", ["version"], registry=self.registry)
        build.labels(version("agentmemory")).set(1)
        for part in ("consolidation", "embedding", "retention", "distillation"):
            self._failures.labels(part)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"agentmemory_{name}", documentation, registry=self.registry)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"agentmemory_{name}", documentation, registry=self.registry)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is a template such as `/v1/agents/{agent}/turns`."""
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            known = method if method in _METHODS else "other"
            child = self._requests.labels(route, known, f"{status // 100}xx")
            if known == method:
                self._children[key] = child
        child.observe(seconds)

    def take(self, status: Status | None) -> None:
        """Remember what the stores say at this scrape; None where they did not answer in time."""
        self.stores.status = status
        self.stores.now = time.time()

    def consolidated(self, events: int, seconds: float) -> None:
        self._consolidated.inc(events)
        self._batches.observe(seconds)

    def dead_lettered(self, events: int) -> None:
        self._dead_lettered.inc(events)

    def opened(self) -> None:
        self._openings.inc()

    def embedded(self, events: int, seconds: float) -> None:
        self._embedded.inc(events)

    def expired(self, events: int) -> None:
        self._expired.inc(events)

    def distilled(self, facts: int) -> None:
        self._distilled.inc(facts)

    def failed(self, what: str) -> None:
        self._failures.labels(what).inc()
