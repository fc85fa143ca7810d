"""Metrics of the operator. Labels are namespaces, names and fixed words; never an agent, a pod or a user's text."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from agentmemory_operator.work import Work

_MEMORY = ("namespace", "agentmemory")
_VERDICTS = {"True": 1.0, "False": 0.0, "Unknown": -1.0}


class Metrics:
    """One registry a process. What cannot be seen has no sample, so that no alert rests on an old value."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        Info("agentmemory_operator_build", "Version of the operator.", registry=registry).info(
            {"version": version("agentmemory")}
        )
        self._reconciliations = Counter(
            "agentmemory_operator_reconciliations", "Reconciliations by result.", ["result"], registry=registry
        )
        self._seconds = Histogram(
            "agentmemory_operator_reconciliation_seconds", "Time that one reconciliation took.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60), registry=registry,
        )  # fmt: skip
        self.leader = Gauge("agentmemory_operator_leader", "1 in the replica that reconciles.", registry=registry)
        self.missing = Gauge(
            "agentmemory_pods_missing_sidecar",
            "Pods that asked for a sidecar and have none.",
            _MEMORY,
            registry=registry,
        )
        self._condition = Gauge(
            "agentmemory_condition", "A condition of the resource: 1 True, 0 False, -1 Unknown.", [*_MEMORY, "type"],
            registry=registry,
        )  # fmt: skip
        self._figures = {
            "lagSeconds": Gauge(
                "agentmemory_lag_seconds",
                "Age of the oldest event that is not in Postgres yet.",
                _MEMORY,
                registry=registry,
            ),
            "lagRatio": Gauge("agentmemory_lag_ratio", "That age as a share of the TTL.", _MEMORY, registry=registry),
            "pending": Gauge("agentmemory_pending_entries", "Entries in the journal.", _MEMORY, registry=registry),
            "deadLetters": Gauge(
                "agentmemory_dead_letters", "Events that Postgres refused.", _MEMORY, registry=registry
            ),
        }

    def reconciled(self, result: str, seconds: float) -> None:
        """One reconciliation ended."""
        self._reconciliations.labels(result).inc()
        self._seconds.observe(seconds)

    def observed(self, work: Work) -> None:
        """Take over what a reconciliation found."""
        key = (work.memory.namespace, work.memory.name)
        # One of this name before may have had others.
        self._condition.remove_by_labels(dict(zip(_MEMORY, key, strict=True)))
        for one in work.found.values():
            self._condition.labels(*key, one.type).set(_VERDICTS[one.status])
        figures = work.status.get("consolidation", {})
        for name, gauge in self._figures.items():
            if name in figures:
                gauge.labels(*key).set(figures[name])
            else:
                gauge.remove_by_labels(dict(zip(_MEMORY, key, strict=True)))

    def forget(self, namespace: str, name: str) -> None:
        """A memory is gone."""
        labels = {"namespace": namespace, "agentmemory": name}
        for gauge in (self._condition, *self._figures.values()):
            gauge.remove_by_labels(labels)
