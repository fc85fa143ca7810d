"""What Prometheus is told of the injector."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

Result = Literal["injected", "untouched", "missed", "dry_run", "failed", "malformed"]
"""missed: asked and got none; failed: neither, for a fault of ours; malformed: no admission review."""
RESULTS: tuple[Result, ...] = ("injected", "untouched", "missed", "dry_run", "failed", "malformed")
_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1)


class InjectorMetrics:
    """The metrics of one injector, in a registry of its own."""

    def __init__(self) -> None:
        # A `_created` gauge beside each counter would double what is scraped.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._admissions = Counter(
            "agentmemory_injector_admissions", "Pods that were looked at, by what became of them.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        for result in RESULTS:
            self._admissions.labels(result)
        self._duration = Histogram(
            "agentmemory_injector_admission_seconds", "From the whole of a request to its answer.", buckets=_BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self._certificate_expiry = Gauge(
            "agentmemory_injector_certificate_expiry_timestamp_seconds", "When the certificate in use expires.",
            registry=self.registry,
        )  # fmt: skip
        self._certificate_failures = Counter(
            "agentmemory_injector_certificate_failures", "Certificates that were mounted and could not be used.",
            registry=self.registry,
        )  # fmt: skip

    def admitted(self, result: Result, seconds: float) -> None:
        """A request was answered."""
        self._admissions.labels(result).inc()
        self._duration.observe(seconds)

    def certificate_loaded(self, expires: datetime) -> None:
        self._certificate_expiry.set(expires.timestamp())

    def certificate_failed(self) -> None:
        self._certificate_failures.inc()

    def watch_cache(self, age: Callable[[], float]) -> None:
        """`age` answers how many seconds ago the cache was last known to be current."""
        gauge = Gauge(
            "agentmemory_injector_cache_age_seconds", "How long ago the known AgentMemories were surely current.",
            registry=self.registry,
        )  # fmt: skip
        gauge.set_function(age)
